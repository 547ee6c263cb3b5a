"""What ranks leave for their next start by the same torchrun (`--max-restarts`)."""

from __future__ import annotations

import os

import torch.distributed as dist

from polaris.distributed.watch import attempt

_HALF_PACKS = "polaris/half_packs"
"""A key without the number of the start, since it is for the next one."""


def comes() -> bool:
    """Whether torchrun starts all ranks again if one of them fails now."""
    return int(attempt()) < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def leave_half_packs(store: dist.Store) -> None:
    """Have the next start train with packs of half the size. The store is that of the job."""
    _lasting(store).set(_HALF_PACKS, "")


def half_packs(store: dist.Store | None) -> bool:
    """Whether an earlier start has left that for this one."""
    return store is not None and _lasting(store).check([_HALF_PACKS])


def _lasting(store: dist.Store) -> dist.Store:
    """The store without the part that some versions of torch give each start."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store
