"""A configuration of either job from its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polaris.config.load import load_job
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.config.toml import read_toml

_TUNING = {"data": {"train_on", "max_tokens"}, "trainer": {"examples_per_step", "epochs"}}
"""Keys that `polaris sft` alone has."""


def read_job(path: Path, overrides: Sequence[str] = ()) -> RunConfig | SftConfig:
    """The configuration of `polaris train`, or of `polaris sft` if it has a key of that alone. Raises `Refused` as `load_job`."""
    values = read_toml(path) if path.is_file() else {}
    tuning = any(keys & values.get(section, {}).keys() for section, keys in _TUNING.items())
    return load_job(SftConfig, path, overrides) if tuning else load_job(RunConfig, path, overrides)
