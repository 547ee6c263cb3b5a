"""The sections of a run's configuration, read from TOML and overrides; it needs no torch, and every folder that has settings stands on
it."""
