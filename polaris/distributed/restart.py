"""What ranks leave for their next start by the same torchrun (`--max-restarts`)."""

from __future__ import annotations

import os

import torch.distributed as dist

from polaris.distributed.watch import attempt

_HALVINGS = "polaris/halvings_of_packs"
"""A key without the number of the start, since it is for the next one."""


def comes() -> bool:
    """Whether torchrun starts all ranks again if one of them fails now."""
    return int(attempt()) < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def leave_halvings(store: dist.Store, halvings: int) -> None:
    """Have the next start train with packs that are halved so often. The store is that of the job; several ranks may say so."""
    _lasting(store).set(_HALVINGS, str(halvings))


def halvings(store: dist.Store | None) -> int:
    """What an earlier start has left of that for this one."""
    if store is None or not _lasting(store).check([_HALVINGS]):
        return 0
    return int(_lasting(store).get(_HALVINGS))


def _lasting(store: dist.Store) -> dist.Store:
    """The store without the part that some versions of torch give each start."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store
