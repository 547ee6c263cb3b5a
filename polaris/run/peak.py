"""The most memory that each part of a step has held."""

from __future__ import annotations

import resource

import torch

from polaris.rollout.types import Engine


class PeakMemory:
    """Watches this rank's GPU part by part; without one, the process as a whole.

    torch's allocator goes on counting what a sleeping vLLM engine has given back to the device: gigabytes of weights and cache that are not
    there while the trainer works. They are taken off.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._peaks = engine, dict[str, float]()
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def end(self, part: str) -> None:
        """The part that began with this object, or with the end of the last part, is over."""
        if self._cuda:
            self._peaks[part] = (torch.cuda.max_memory_allocated() - self._engine.asleep_bytes) / 2**30
            torch.cuda.reset_peak_memory_stats()

    def facts(self) -> dict[str, float]:
        """`memory/peak_gib`, and on a GPU that of each part."""
        if not self._cuda:
            return {"memory/peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        return {"memory/peak_gib": max(self._peaks.values())} | {f"memory/{part}_gib": peak for part, peak in self._peaks.items()}
