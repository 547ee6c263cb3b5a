"""Ranks that fail together say why once, and end together."""

from __future__ import annotations

import os
import time
from typing import Any

import torch.distributed as dist

from polaris.distributed.mesh import World

_POLL_S = 0.02


def speaks(world: World, reason: str, patience_s: float = 2.0) -> bool:
    """Whether this rank has to say why it fails: no rank before it has failed for the same reason.

    Returns as soon as all ranks have failed, and after `patience_s` where this one fails alone: the others may be in a collective, so
    they are asked through torchrun's store.
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
        return True  # the store is gone, and its host with it
