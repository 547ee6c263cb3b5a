"""Ranks that fail together print the reason once, and end together."""

from __future__ import annotations

import time

from polaris.distributed.mesh import Job
from polaris.distributed.watch import attempt

_POLL_S = 0.02


def should_print(job: Job, reason: str, patience_s: float = 2.0) -> bool:
    """Whether this rank must print why it fails: no lower rank fails for the same reason.

    Returns as soon as all ranks have failed, or after `patience_s` if this one fails alone. Ranks meet in torchrun's store, since the
    others may be in a collective.
    """
    if job.size == 1:
        return True
    keys = _keys(job)
    deadline = time.monotonic() + patience_s
    try:
        job.store.set(keys[job.rank], reason)
        while not job.store.check(keys) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return not any(job.store.check([key]) and job.store.get(key).decode() == reason for key in keys[: job.rank])
    except RuntimeError:
        return True  # the store is gone with its host


def concerns_all(job: Job, reason: str) -> bool:
    """Whether all ranks fail for this reason; known once `should_print` has returned."""
    if job.size == 1:
        return True
    try:
        return job.store.check(_keys(job)) and all(job.store.get(key).decode() == reason for key in _keys(job))
    except RuntimeError:
        return False  # the store is gone with its host


def _keys(job: Job) -> list[str]:
    return [f"polaris/{attempt()}/failed/{rank}" for rank in range(job.size)]
