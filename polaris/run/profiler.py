"""Torch profiler traces and memory snapshots of chosen steps, on rank 0 (`observe.profile`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_EVENTS = 200_000
"""Most allocations and releases that a snapshot holds, the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """Writes into `folder` what rank 0 does in the `steps` from the first to the last one; nothing where there are none."""

    folder: Path
    steps: Sequence[int]
    note: Callable[[str], None]

    @contextmanager
    def traced(self, step: int) -> Iterator[None]:
        """Trace the block, where step `step` is one of those. Numbers that are computed in it stay the same.

        A rollout of thousands of tokens has millions of events, so it is no part of the block; vLLM has a profiler of its own.
        """
        if not self.steps or not self.steps[0] <= step <= self.steps[-1]:
            yield
            return
        cuda = torch.cuda.is_available()
        self.folder.mkdir(parents=True, exist_ok=True)
        trace, memory = self.folder / f"step-{step:06d}.json.gz", self.folder / f"step-{step:06d}-memory.pickle"
        if cuda:
            torch.cuda.memory._record_memory_history(max_entries=_EVENTS)
        try:
            with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda], record_shapes=True) as profiled:
                yield
            if cuda:
                torch.cuda.memory._dump_snapshot(str(memory))
        finally:
            if cuda:
                torch.cuda.memory._record_memory_history(enabled=None)
        profiled.export_chrome_trace(str(trace))
        snapshot = f"; its memory: {memory} (for pytorch.org/memory_viz)" if cuda else ""
        self.note(f"step {step}: the trace of update and sync: {trace} (for ui.perfetto.dev){snapshot}")


def open_profiler(folder: Path, steps: Sequence[int], main: bool, note: Callable[[str], None]) -> Profiler:
    """Of a run's folder; on other ranks than the first one, one that traces nothing."""
    return Profiler(folder=folder / "profile", steps=steps if main else (), note=note)
