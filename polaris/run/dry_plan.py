"""The plan of a configuration for the GPUs of this machine, as `--dry-run` shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.plan.advice import what_does_not_fit
from polaris.plan.machine import gpus_here, machine_of
from polaris.plan.page import lines
from polaris.plan.setup import setup_of
from polaris.plan.shape import shape_of


def planned(config: RunConfig | SftConfig, folder: Path) -> Iterator[str]:
    """Lines of the plan of the model in `folder`, on the GPUs that torchrun was given, else on all of this machine."""
    card, here = machine_of()
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus, nodes = (here, 1) if size == 1 else (local, size // local)
    setup = setup_of(config, shape_of(folder), card, gpus, nodes)
    assumed = "" if gpus_here() else ", which are assumed, since this machine has no GPU"
    yield f"the plan for {gpus * nodes} GPUs{assumed}; `polaris plan` makes it for others (docs/plan.md)"
    yield from lines(setup)
    if (fault := what_does_not_fit(setup)) is not None:
        yield f"does not fit: {fault}"
