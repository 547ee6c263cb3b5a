"""Peak memory of each part of a step."""

from __future__ import annotations

import resource

import torch

from polaris.rollout.types import Engine


class PeakMemory:
    """Peak memory of this rank's GPU for each part of a step; without a GPU, that of the process.

    A sleeping vLLM engine gives gigabytes of weights and cache back to the device, but torch's allocator still counts them. They are
    subtracted.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._peaks = engine, dict[str, float]()
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def end(self, part: str) -> None:
        """End a part; it began with this object, or with the end of the part before."""
        if self._cuda:
            self._peaks[part] = (torch.cuda.max_memory_allocated() - self._engine.asleep_bytes) / 2**30
            torch.cuda.reset_peak_memory_stats()

    def facts(self) -> dict[str, float]:
        """`memory/peak_gib`, and on a GPU that of each part."""
        if not self._cuda:
            return {"memory/peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        return {"memory/peak_gib": max(self._peaks.values())} | {f"memory/{part}_gib": peak for part, peak in self._peaks.items()}
