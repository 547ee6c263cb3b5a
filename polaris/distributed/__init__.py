"""This process among its ranks: process group, sharding, seeds, and the watch that names a rank that hangs; it needs only `config`, and
`rollout`, `learn`, `checkpoint` and `run` stand on it."""
