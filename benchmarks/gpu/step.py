"""The train step of Qwen3-4B with random weights at three lengths, plain and by each rung of docs/memory.md, with the plan's memory beside
what was measured; no memory for one is a result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.step.train_step import QWEN3_4B, RUNGS, TINY, measure_step

LENGTHS = (16_384, 32_768, 65_536)


def figures(call: Call) -> Iterator[Figure]:
    """Plain steps first; then every rung at one length before the next length."""
    lengths = (64, 128) if call.small else LENGTHS
    for rungs, seconds in ((["plain"], 90), ([rung for rung in RUNGS if rung != "plain"], 120)):
        for tokens in lengths:
            for rung in rungs:
                name = f"train step, {tokens} tokens" + (f", {rung}" if rung != "plain" else "")
                yield Figure(name=name, seconds=seconds, run=partial(measure, name, tokens, rung, call.small))


def measure(name: str, tokens: int, rung: str, small: bool) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        values = measure_step(TINY if small else QWEN3_4B, Path(folder), tokens, RUNGS[rung])
    row = {"test": "train_step", "case": str(tokens), "parameters": {"tokens": tokens, "rung": rung, "name": "polaris"}}
    yield Line(name=name, values=values, row=row)
