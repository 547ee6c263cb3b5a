"""The trainer's weights to a rollout engine as one version, with the proof that the engine serves them; it stands on `rollout`, and
`sampling` publishes through it."""
