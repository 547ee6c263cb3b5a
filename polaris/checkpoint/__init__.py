"""A run on disk: its folder, committed checkpoints, branches and exports; it saves what `distributed` and `model` hold, and `run` and
`recipe` resume from it."""
