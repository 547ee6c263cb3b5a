"""Groups to gradients: advantages, packs, the loss and the optimizer behind one `Learner`; it stands on `model` and `algorithm`, and the
step in `run` calls it."""
