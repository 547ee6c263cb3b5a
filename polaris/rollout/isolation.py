"""Keeps a rollout engine from changing the trainer in the same process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from polaris.distributed.seeds import random_state, restore_random_state

CHANGED_VARIABLES = ("LD_PRELOAD", "LOCAL_WORLD_SIZE")


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Leave python's, numpy's and torch's global generators as they were."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


@contextmanager
def any_kernel() -> Iterator[None]:
    """Turn off the trainer's deterministic mode: on CUDA it forbids operations of vLLM's compiler and of sampling."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


@contextmanager
def preserved_process() -> Iterator[None]:
    """Undo changes that building a vLLM engine makes to its process: generators, thread control, inherited variables."""
    set_num_threads = torch.set_num_threads
    variables = {name: os.environ.get(name) for name in CHANGED_VARIABLES}
    try:
        with preserved_randomness():
            yield
    finally:
        torch.set_num_threads = set_num_threads
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
