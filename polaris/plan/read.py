"""A configuration of either job from its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polaris.config.load import load_job
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.config.toml import read_toml
from polaris.model.check import check_sharing

_TUNING = {"data": {"train_on", "max_tokens"}, "trainer": {"examples_per_step", "epochs"}}
"""Keys that `polaris sft` alone has."""


def read_job(path: Path, overrides: Sequence[str] = ()) -> RunConfig | SftConfig:
    """The configuration of `polaris train`, or of `polaris sft` if it has a key of that alone. Raises `Refused` as `load_job`."""
    values = read_toml(path) if path.is_file() else {}
    tuning = any(keys & values.get(section, {}).keys() for section, keys in _TUNING.items())
    return load_job(SftConfig, path, overrides) if tuning else load_job(RunConfig, path, overrides)


def check_start(config: RunConfig | SftConfig, heads: int, ranks: int) -> None:
    """Raise `Refused`, as a start on so many ranks would, for settings that do not divide them or the model's attention heads."""
    if isinstance(config, RunConfig):
        config.check_ranks(ranks)
    else:
        config.check_trainers(ranks)
    check_sharing(heads, config.distributed.sequence_parallel, config.model.path)
