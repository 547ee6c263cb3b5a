"""Whether an engine that holds adapters beside the model's weights holds those that were published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from polaris.distributed.mesh import World
from polaris.rollout.types import Engine, HoldsAdapters
from polaris.sync.probe import WeightSyncError

Weights = Callable[[], Iterable[tuple[str, Tensor]]]
"""What is published, gathered anew by each call; a collective."""


def check_held(engine: Engine, weights: Weights, version: int, dtype: str, world: World) -> None:
    """Raise `WeightSyncError` unless the engine of every rank holds the adapters that were published, in its dtype."""
    held = engine.held_adapters() if isinstance(engine, HoldsAdapters) else {}
    fault = first_difference(held, weights(), dtype)
    for found in world.gather([fault]):
        if found:
            raise WeightSyncError(
                f"after the sync of version {version}, the engine does not hold the adapters of the trainer: {found}. Resume from the last "
                'checkpoint; if it happens again, report it, and set model.lora.sync to "merged"'
            )


def first_difference(held: Mapping[str, Tensor], published: Iterable[tuple[str, Tensor]], dtype: str) -> str:
    """The first adapter that is not held as it was published, but for rounding to `dtype`, in words, or "". Reads all of `published`."""
    numbers = torch.finfo(getattr(torch, dtype))
    rounding, found = 1.01 * numbers.eps, ""  # once as it is read, once as vLLM multiplies by alpha / rank
    smallest = 16 * numbers.eps * numbers.smallest_normal  # steps of numbers below the normal ones: in float16 6e-8, over alpha / rank
    for name, tensor in published:
        if found:
            continue
        if name not in held:
            found = f"{name} is not there"
            continue
        ours = tensor.detach().float().cpu()
        same = (held[name] - ours).abs() <= rounding * ours.abs() + smallest
        if not bool(same.all()):
            found = f"{int((~same).sum())} of {ours.numel()} numbers of {name} are others"
    return found
