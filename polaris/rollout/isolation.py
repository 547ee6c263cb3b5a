"""Keeps a rollout engine from changing the trainer that it shares a process with."""

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
def preserved_process() -> Iterator[None]:
    """Undo what building a vLLM engine does to its process: generators, thread control, variables that children would inherit."""
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
