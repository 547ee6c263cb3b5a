"""Pure functions of arrays and counts, from advantages to temperature zones and intervals; they know no configuration, and `learn`,
`recipe`, `evaluation` and the report call them."""
