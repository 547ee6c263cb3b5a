"""A contest: one operation at one shape, its contestants, and what is told about each: pytest and the GPU runner measure the same."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.kernels.peak import peak_memory, reset_peak
from benchmarks.kernels.size import Size

Run = Callable[[], object]
OURS = "polaris"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What this machine held in the same run: operations per second in a large bfloat16 product, bytes per second in a copy."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an operation has to do: `flops` in matrix products, `bytes` read and written; one of them is its bound."""

    flops: float = 0.0
    bytes: float = 0.0

    def facts(self, seconds: float, bound: Bound) -> dict[str, float]:
        if self.flops:
            return {"TFLOP/s": self.flops / seconds / 1e12, "% of bound": 100 * self.flops / seconds / bound.flops}
        return {"GB/s": self.bytes / seconds / 1e9, "% of bound": 100 * self.bytes / seconds / bound.bandwidth}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A contest's inputs in memory: `run` calls a contestant's function once, `check` tells what else there is to say about it."""

    work: Work
    run: Callable[[Any], object]
    check: Callable[[Any], dict[str, float]] = lambda function: {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """`parameters` are the case, such as rows and direction. `contestants` make their functions for a device, or raise (see `peers`)."""

    operation: str
    parameters: Mapping[str, Any]
    contestants: Mapping[str, Callable[[torch.device], Any]]
    prepare: Callable[[torch.device], Arena]
    rounds: int

    @property
    def name(self) -> str:
        return "-".join(map(str, [self.operation, *self.parameters.values()]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`runs` by setting, the committed one first; `wrong` says what a result has that it may not have, or nothing."""

    runs: Mapping[str, Callable[[], Any]]
    wrong: Callable[[Any], str]
    work: Work


def measure_bound(device: torch.device, size: Size) -> Bound:
    """Held for two seconds each on a GPU, since its clocks fall under load."""
    width, length, seconds = {"gpu": (8192, 2**30, 2.0), "cpu": (2048, 2**28, 0.5), "tiny": (256, 2**20, 0.0)}[size]
    left, right = torch.randn(2, width, width, device=device, dtype=torch.bfloat16)
    source, target = torch.empty(2, length, dtype=torch.uint8, device=device).random_()
    return Bound(
        flops=2 * width**3 / held_seconds(lambda: left @ right, device, seconds)[1],
        bandwidth=2 * length / held_seconds(lambda: target.copy_(source), device, seconds)[1],
    )


def held_seconds(run: Run, device: torch.device, seconds: float) -> tuple[float, float]:
    """Medians over the first ten runs and over those of the last half of `seconds`, without a pause between them; at least two."""
    run()
    taken: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(taken) < 2 or taken[-1][0] < seconds:
        one = timed(run, device)
        taken.append((time.perf_counter() - began, one))
    last = [one for end, one in taken if end > taken[-1][0] / 2]
    return statistics.median(one for _, one in taken[:10]), statistics.median(last)


def median_seconds(run: Run, device: torch.device, rounds: int = 5) -> float:
    run()
    return statistics.median(timed(run, device) for _ in range(rounds))


def timed(run: Run, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def free() -> None:
    """Give back the memory of all that nothing uses any more; models sit in reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_gib(run: Run, device: torch.device) -> float:
    """Memory that a run takes beyond what was there before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    before = reset_peak()
    run()
    return (peak_memory() - before) / 2**20


def facts(work: Work, bound: Bound, seconds: list[float], memory: float) -> dict[str, float]:
    """What every contestant's row says."""
    median = statistics.median(seconds)
    spread = {"median s": median, "min s": min(seconds), "max s": max(seconds)}
    return spread | {"ms": 1000 * median, **work.facts(median, bound), "peak GiB": memory}


def beside_ours(seconds: list[float], ours: list[float]) -> dict[str, float]:
    """The comparison with ours, whose turns were taken in between."""
    median = statistics.median(ours)
    return {"ours ms, interleaved": 1000 * median, "ours is faster by": statistics.median(seconds) / median}
