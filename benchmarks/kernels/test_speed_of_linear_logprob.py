"""`linear_logprob` beside peers. The bound counts 2 T H V operations forward and 8 T H V with the backward, which recomputes logits."""

from __future__ import annotations

import pytest
import torch
from contest import Work, compete, function_of
from errors import truth
from heads import HEADS, draw
from peers import LINEAR_LOGPROB

SHAPES = (
    [("qwen3-4b", rows) for rows in (8192, 40_960, 98_304)] + [(head, 40_960) for head in HEADS if head != "qwen3-4b"]
    if torch.cuda.is_available()
    else [("qwen3-4b", 256)]
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", LINEAR_LOGPROB)
@pytest.mark.parametrize(("head", "rows"), SHAPES)
def test_linear_logprob(benchmark, device, bound, green, head, rows, name, direction):
    function, ours = (function_of(LINEAR_LOGPROB, which, device) for which in (name, "polaris"))
    hidden, weight, targets = draw(head, rows, device)

    def forward(function):
        with torch.no_grad():
            return function(hidden, weight, targets)

    def both(function):
        logprob, entropy = function(hidden, weight, targets)
        loss = logprob.sum() if entropy is None else logprob.sum() + 0.01 * entropy.sum()
        return torch.autograd.grad(loss, (hidden, weight))

    run, products = (forward, 2) if direction == "forward" else (both, 8)
    compared = name != "polaris" and green("linear_logprob")
    work = Work(flops=products * rows * hidden.shape[1] * len(weight))
    other = (lambda: run(ours)) if compared else None
    compete(benchmark, lambda: run(function), other, work, bound, device, rounds=5 if device.type == "cuda" else 3)
    if direction == "forward":
        sample = slice(32)
        exact = truth(hidden[sample].detach().double(), weight.detach().double(), targets[sample])[0]
        with torch.no_grad():
            found = function(hidden[sample], weight, targets[sample])[0]
        benchmark.extra_info["log-prob error"] = float((found.double() - exact).abs().max())
