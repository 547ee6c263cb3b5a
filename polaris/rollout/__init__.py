"""Requests to rollouts: the `Engine` protocol, with vLLM and transformers behind it; it stands on `model` and `distributed`, and `sync`,
`sampling` and `evaluation` drive it."""
