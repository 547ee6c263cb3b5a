"""`linear_logprob` beside peers. The bound counts 2 T H V operations forward and 8 T H V with the backward, which recomputes logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.kernels.contest import Arena, Contest, Work
from benchmarks.kernels.errors import truth
from benchmarks.kernels.heads import HEADS, draw
from benchmarks.kernels.peers import LINEAR_LOGPROB
from benchmarks.kernels.size import Size

DIRECTIONS = ("forward+backward", "forward")
SHAPES: dict[Size, list[tuple[str, int]]] = {
    "gpu": [("qwen3-4b", 40_960), ("qwen3-4b", 8192), ("qwen3-4b", 98_304)] + [(h, 40_960) for h in HEADS if 2048 <= HEADS[h][1] != 2560],
    "cpu": [("qwen3-4b", 256)],
    "tiny": [("tiny", 64)],
}


def contests(size: Size) -> Iterator[Contest]:
    for head, rows in SHAPES[size]:
        for direction in DIRECTIONS:
            yield Contest(
                operation="linear_logprob",
                parameters={"head": head, "rows": rows, "direction": direction},
                contestants=LINEAR_LOGPROB,
                prepare=lambda device, case=(head, rows, direction): prepare(device, *case),
                rounds=5 if size == "gpu" else 3,
            )


def prepare(device: torch.device, head: str, rows: int, direction: str) -> Arena:
    hidden, weight, targets = draw(head, rows, device)
    sample = slice(32)

    def forward(function: Any) -> object:
        with torch.no_grad():
            return function(hidden, weight, targets)

    def both(function: Any) -> object:
        logprob, entropy = function(hidden, weight, targets)
        loss = logprob.sum() if entropy is None else logprob.sum() + 0.01 * entropy.sum()
        return torch.autograd.grad(loss, (hidden, weight))

    def check(function: Any) -> dict[str, float]:
        exact = truth(hidden[sample].detach().double(), weight.detach().double(), targets[sample])[0]
        with torch.no_grad():
            found = function(hidden[sample], weight, targets[sample])[0]
        return {"log-prob error": float((found.double() - exact).abs().max())}

    if direction == "forward":
        return Arena(work=Work(flops=2 * rows * weight.numel()), run=forward, check=check)
    return Arena(work=Work(flops=8 * rows * weight.numel()), run=both)
