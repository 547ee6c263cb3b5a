"""Errors of each contestant of `linear_logprob` against float64: `python -m benchmarks.kernels.errors [ROWS [HEAD ...]]`.

Same inputs for all, in bfloat16, float16 and float32; the truth takes them to float64 once. Log-prob and entropy: largest absolute
error over the rows.
Gradients of sum(g * logprob + 0.1 * h * entropy) with random g and h: norm of the error by norm of the truth; contestants without
entropy get a truth without it.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.heads import draw
from benchmarks.kernels.peers import LINEAR_LOGPROB, TEMPERATURE, LogProb, Unavailable, load

HEAD = "qwen3-4b"
FACTS = ("log-prob", "entropy", "gradient of hidden", "gradient of weight")


def truth(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = (hidden @ weight.T / TEMPERATURE).log_softmax(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def evaluate(function: LogProb, inputs: tuple[Tensor, Tensor, Tensor], with_entropy: bool) -> list[Tensor | None]:
    """Log-probs, entropies (or None), gradients of hidden and weight."""
    hidden, weight = (leaf.detach().requires_grad_() for leaf in inputs[:2])
    logprob, entropy = function(hidden, weight, inputs[2])
    generator = torch.Generator().manual_seed(1)
    up, sideways = torch.randn(2, len(logprob), generator=generator).to(logprob.device)
    loss = (up * logprob).sum()
    if with_entropy and entropy is not None:
        loss = loss + 0.1 * (sideways * entropy).sum()
    gradients = torch.autograd.grad(loss, (hidden, weight))
    return [logprob.detach(), None if entropy is None else entropy.detach(), *gradients]


def errors(found: list[Tensor | None], true: list[Tensor]) -> list[float | None]:
    rows = [None if got is None else float((got.double() - exact).abs().max()) for got, exact in zip(found[:2], true[:2], strict=True)]
    return rows + [_distance(got, exact) for got, exact in zip(found[2:], true[2:], strict=True)]


def _distance(found: Tensor, exact: Tensor) -> float:
    """Norm of the error by norm of the truth, a few rows at a time, since a weight in float64 takes gigabytes."""
    parts = zip(found.split(4096), exact.split(4096), strict=True)
    return float(torch.stack([(part.double() - true).norm() for part, true in parts]).norm() / exact.norm())


class Judge:
    """The errors of any contestant on the same inputs."""

    def __init__(self, head: str, rows: int, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> None:
        self._inputs, self._device = draw(head, rows, device, dtype), device
        self._truth: tuple[bool, list[Any]] | None = None  # with or without entropy, and what is true then

    def __call__(self, name: str) -> dict[str, float]:
        """Fact -> error; a contestant without entropy has none of it.

        Raises:
            Unavailable: the contestant cannot run here.
        """
        function = load(LINEAR_LOGPROB, name, self._device)
        with_entropy = function(*self._inputs)[1] is not None
        if self._truth is None or self._truth[0] != with_entropy:
            hidden, weight, targets = self._inputs
            self._truth = None
            self._truth = with_entropy, evaluate(truth, (hidden.detach().double(), weight.detach().double(), targets), with_entropy)
        found = errors(evaluate(function, self._inputs, with_entropy), self._truth[1])
        return {fact: error for fact, error in zip(FACTS, found, strict=True) if error is not None}


def main(rows: int, heads: list[str]) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{rows} rows, temperature {TEMPERATURE}, torch {torch.__version__}, {device.type}.\n")
    print("| head | dtype | | " + " | ".join(FACTS) + " |\n|" + "---|" * (3 + len(FACTS)))
    for head in heads:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            judge = Judge(head, rows, device, dtype)
            for name in LINEAR_LOGPROB:
                try:
                    found = judge(name)
                    cells = [f"{found[fact]:.1e}" if fact in found else "none" for fact in FACTS]
                except Unavailable as reason:
                    cells = [f"not run: {reason}", "", "", ""]
                print(f"| {head} | {str(dtype)[6:]} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64, sys.argv[2:] or [HEAD])
