"""Choose the tiles of this GPU's architecture: `python -m benchmarks.kernels.choose_tiles [float32]` prints what to commit to tiles.py.

One field after the other takes each of its choices while the rest stays as it is, and keeps the fastest; rounds go on until a whole
round changes nothing. The time is that of `linear_logprob`, forward and backward, at the head of Qwen3-4B. Choices that do not fit
the chip are passed over.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from benchmarks.kernels.contest import median_seconds
from benchmarks.kernels.heads import draw
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import tiled_backward, tiled_forward
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles, tiles_for

ROWS = 16_384
CHOICES: dict[str, Sequence[Any]] = {
    "block_t": (32, 64, 128, 256),
    "block_v": (64, 128, 256),
    "block_h": (32, 64, 128),
    "resident": (1, 2, 4),
    "warps": (4, 8),
    "stages": (2, 3, 4, 5),
    "tma": (False, True),
    "group": (4, 8, 16, 32),
    "merge": (32, 64, 128, 256),
}


def descend(start: Tiles, cost: Callable[[Tiles], float]) -> Iterator[tuple[Tiles, float]]:
    """Every better setting on the way from `start`, with its cost; the last is the one that no single change improves."""
    best, least = start, cost(start)
    yield best, least
    tried = {start}
    improved = True
    while improved:
        improved = False
        for field, choices in CHOICES.items():
            for candidate in (replace(best, **{field: choice}) for choice in choices):
                if candidate in tried:
                    continue
                tried.add(candidate)
                if (seconds := cost(candidate)) < least:
                    best, least, improved = candidate, seconds, True
                    yield best, least


def timer(dtype: torch.dtype) -> tuple[Tiles, Callable[[Tiles], float]]:
    """The committed tiles of this device, and the seconds of others."""
    device = torch.device("cuda")
    hidden, weight, targets = (tensor.detach() for tensor in draw("qwen3-4b", ROWS, device, dtype))
    head, values = Head(weight=weight), torch.ones(ROWS, device=device)

    def run(tiles: Tiles) -> None:
        logprob, entropy, (maximum, log_total) = tiled_forward(hidden, head, targets, values, -100, tiles)
        row = Rows(
            targets=targets,
            temperature=values,
            maximum=maximum,
            log_total=log_total,
            logprob=logprob,
            entropy=entropy,
            logprob_gradient=logprob,
            entropy_gradient=values,
        )
        tiled_backward(hidden, head, row, True, tiles)

    def seconds(tiles: Tiles) -> float:
        try:
            return median_seconds(lambda: run(tiles), device)
        except OutOfResources:
            return math.inf

    return tiles_for(hidden, head), seconds


def main(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        sys.exit("choose_tiles needs a CUDA device")
    for tiles, seconds in descend(*timer(dtype)):
        settings = ", ".join(f"{field.name}={getattr(tiles, field.name)}" for field in fields(tiles))
        print(f"{1000 * seconds:8.2f} ms  Tiles({settings})", flush=True)


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]) if len(sys.argv) > 1 else torch.bfloat16)
