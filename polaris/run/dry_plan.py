"""The plan of a configuration for the GPUs of this machine, as `--dry-run` shows it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.errors import Refused
from polaris.plan.advice import what_does_not_fit
from polaris.plan.machine import gpus_here, host_gib, machine_of
from polaris.plan.page import lines
from polaris.plan.setup import Engines, setup_of
from polaris.plan.shape import shape_of


def show_plan(config: RunConfig | SftConfig, folder: Path, engine: Engines | None = None) -> str | None:
    """Print the plan of the model in `folder`, on the GPUs that torchrun was given, else on all of this machine; what does not fit.

    `engine`: what samples, if it is known to be another than the configuration names."""
    card, here = machine_of()
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus, nodes = (here, 1) if size == 1 else (local, size // local)
    setup = setup_of(config, shape_of(folder), card, gpus, nodes)
    setup = replace(setup, engine=engine or setup.engine, host_gib=host_gib() if gpus_here() else 0.0)
    assumed = "" if gpus_here() else ", which are assumed, since this machine has no GPU"
    print(f"\nthe plan for {gpus * nodes} GPUs{assumed}; `polaris plan` makes it for others (docs/plan.md)")
    print(*lines(setup), sep="\n")
    if (fault := what_does_not_fit(setup)) is not None:
        print(f"does not fit: {fault}")
    return fault


def conclude(fault: str | None) -> None:
    """The last line of a dry run. Raises `Refused` where the plan does not fit GPUs that are there, since a start would be refused."""
    if fault is not None and gpus_here():
        raise Refused(fault)
    print(f"\nall checks passed{' but that of the assumed GPUs' if fault else ''}; nothing was trained")
