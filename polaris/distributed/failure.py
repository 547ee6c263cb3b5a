"""Ranks that fail together print the reason once, and end together."""

from __future__ import annotations

import os
import time
from typing import Any

import torch.distributed as dist

from polaris.distributed.mesh import World

_POLL_S = 0.02


def should_print(world: World, reason: str, patience_s: float = 2.0) -> bool:
    """Whether this rank must print why it fails: no lower rank fails for the same reason.

    Returns as soon as all ranks have failed, or after `patience_s` if this one fails alone. Ranks meet in torchrun's store, since the
    others may be in a collective.
    """
    if world.size == 1:
        return True
    store: Any = dist.distributed_c10d._get_default_store()
    keys = [f"polaris/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/failed/{rank}" for rank in range(world.size)]
    deadline = time.monotonic() + patience_s
    try:
        store.set(keys[world.rank], reason)
        while not store.check(keys) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return not any(store.check([key]) and store.get(key).decode() == reason for key in keys[: world.rank])
    except RuntimeError:
        return True  # the store is gone with its host
