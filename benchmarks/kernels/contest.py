"""One contestant against ours: interleaved rounds, and the facts that go beside the seconds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peak import peak_memory, reset_peak
from peers import Unavailable, load

Run = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What this machine did at best in the same run: operations per second in a large bfloat16 product, bytes per second in a copy."""

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


def function_of(contestants: dict[str, Any], name: str, device: torch.device) -> Any:
    """The contestant's function; a skip with the reason where there is none."""
    try:
        return load(contestants, name, device)
    except Unavailable as reason:
        pytest.skip(str(reason))


def compete(benchmark: Any, run: Run, ours: Run | None, work: Work, bound: Bound, device: torch.device, rounds: int) -> None:
    """Benchmark `run`, each round after a turn of `ours` (None: the contestant is ours, or tests are red and nothing is compared)."""
    turns: list[float] = []

    def other_turn() -> None:
        if ours is not None:
            turns.append(timed(ours, device))

    def round_() -> None:
        run()
        synchronise(device)

    try:
        memory = peak_gib(run, device)
        benchmark.pedantic(round_, setup=other_turn, rounds=rounds, warmup_rounds=1)
    except torch.OutOfMemoryError:
        pytest.skip(f"out of memory on {torch.cuda.get_device_name()}")
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {"ms": 1000 * seconds, **work.facts(seconds, bound), "peak GiB": memory}
    if turns:
        ours_seconds = statistics.median(turns[1:])  # the first is the warm-up's
        benchmark.extra_info |= {"ours ms, interleaved": 1000 * ours_seconds, "ours is faster by": seconds / ours_seconds}
