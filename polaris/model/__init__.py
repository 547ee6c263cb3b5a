"""A checkpoint folder to a policy: packed forward, attention, rope and head, and which models can be trained; it stands on `config`, and
`rollout`, `learn` and `checkpoint` use it."""
