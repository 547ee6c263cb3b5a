"""The train step of Qwen3-4B with random weights at three lengths; no memory for one is a result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.step.train_step import QWEN3_4B, TINY, measure_step

LENGTHS = (16_384, 32_768, 65_536)


def figures(call: Call) -> Iterator[Figure]:
    for tokens in (64, 128) if call.small else LENGTHS:
        name = f"train step, {tokens} tokens"
        yield Figure(name=name, seconds=90, run=partial(measure, name, tokens, call.small))


def measure(name: str, tokens: int, small: bool) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        values = measure_step(TINY if small else QWEN3_4B, Path(folder), tokens)
    row = {"test": "train_step", "case": str(tokens), "parameters": {"tokens": tokens, "name": "polaris"}}
    yield Line(name=name, values=values, row=row)
