"""One call each puts the operations of this package into another trainer: `trl.patch()`, `verl.patch()`; `unpatch()` takes them out; they
stand on the public operations, and nothing here imports them."""
