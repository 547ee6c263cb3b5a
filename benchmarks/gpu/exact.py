"""Whether the head's operations are right at a model's real size; what is not is not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.figures import Call
from benchmarks.gpu.journal import Line
from benchmarks.kernels.contest import free
from benchmarks.kernels.errors import FACTS, errors, evaluate, truth
from benchmarks.kernels.heads import draw
from benchmarks.kernels.linear_policy_loss import CONTESTANTS as LINEAR_POLICY_LOSS
from benchmarks.kernels.peers import LINEAR_LOGPROB, Unavailable, dapo_losses, load

MOST = dict(zip(FACTS, (1e-4, 1e-4, 4e-3, 4e-3), strict=True)) | {"loss": 1e-4}
"""Errors against float64 that are allowed: nats, and shares of a bfloat16 gradient's norm."""
CUTS = (0, 13)
"""Columns taken off the vocabulary: both parts end within a tile."""


def check(head: str, call: Call, device: torch.device) -> Iterator[Line]:
    """Both operations against float64 at the head's real size, with targets from the whole vocabulary, for all of it and for a part that
    ends within a tile."""
    hidden, weight, _ = draw(head, 48 if call.small else 512, device)
    for cut in CUTS:
        part = weight[: len(weight) - cut].detach().clone()
        targets = torch.randint(len(part), (len(hidden),), generator=torch.Generator(device).manual_seed(2), device=device)
        for operation, judge in (("linear_logprob", judge_logprob), ("linear_policy_loss", judge_policy_loss)):
            values, wrong = judge((hidden, part, targets), device)
            wrong = [f"{fact} {error:.1e} is above {MOST[fact]:.0e}" for fact, error in values.items() if not error <= MOST[fact]] + wrong
            name = f"check {head}, {len(part)} columns, {operation}"
            yield Line(name=name, values=values, status="failed" if wrong else "ok", reason="; ".join(wrong))
            free()


def judge_logprob(own: tuple[Tensor, Tensor, Tensor], device: torch.device) -> tuple[dict[str, float], list[str]]:
    """Errors of log-probs, entropies and gradients; whether a second call and another order of the rows give other bits."""
    function, exact = load(LINEAR_LOGPROB, "polaris", device), _doubled(own)
    found = [value for value in evaluate(function, own, with_entropy=True) if value is not None]
    again = [value for value in evaluate(function, own, with_entropy=True) if value is not None]
    wrong = [] if all(map(torch.equal, found, again)) else ["a second call gave other bits"]
    if not same_in_another_order(function, own, found[:2]):
        wrong.append("a row's bits depend on its place")
    return dict(zip(FACTS, errors(found, evaluate(truth, exact, with_entropy=True)), strict=True)), wrong


def judge_policy_loss(own: tuple[Tensor, Tensor, Tensor], device: torch.device) -> tuple[dict[str, float], list[str]]:
    """Errors of the loss and its gradients, where bounds of the ratio act and where they do not; whether a second call gives other bits."""
    ours, exact = load(LINEAR_POLICY_LOSS, "polaris", device), _doubled(own)
    with torch.no_grad():
        logprob = truth(*exact)[0]
    # Log-ratios far from every bound, which an error of the log-prob must not cross: dapo's are log 0.8, log 1.28 and log 3.
    ratio = torch.tensor([-0.4, -0.1, 0.1, 0.4, 1.5], device=device).repeat(len(logprob) // 5 + 1)[: len(logprob)]
    advantage = torch.tensor([1.0, -1.0], device=device).repeat(len(logprob) // 2)
    behaviour = (logprob - ratio).float()

    def evaluated(function: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        hidden, weight = (leaf.detach().requires_grad_() for leaf in inputs[:2])
        loss = function(hidden, weight, inputs[2], behaviour, advantage)
        return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]

    found, again = evaluated(ours, own), evaluated(ours, own)
    true = evaluated(lambda h, w, t, old, up: dapo_losses(truth(h, w, t)[0], old, up).mean(), exact)
    wrong = [] if all(map(torch.equal, found, again)) else ["a second call gave other bits"]
    loss, *gradients = zip(found, true, strict=True)
    norms = [float((got.double() - exact).norm() / exact.norm()) for got, exact in gradients]
    return dict(zip(("loss", *FACTS[2:]), (abs(float(loss[0]) - float(loss[1])), *norms), strict=True)), wrong


def _doubled(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return inputs[0].detach().double(), inputs[1].double(), inputs[2]


def same_in_another_order(function: Any, inputs: tuple[Tensor, Tensor, Tensor], found: list[Tensor]) -> bool:
    """Whether a third of the rows, from the last to the first, get the same bits."""
    rows = torch.arange(len(inputs[0]) - 1, 0, -3, device=inputs[0].device)
    with torch.no_grad():
        results = function(inputs[0][rows].contiguous(), inputs[1], inputs[2][rows])
    return all(torch.equal(result, values[rows]) for result, values in zip(results, found, strict=True))


def if_right(call: Call, heads: Iterable[str], run: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The run, unless a check is red or has not been made.

    Raises:
        Unavailable: which one.
    """
    ended = {line["name"]: line for line in call.journal.lines() if line["status"] != "started"}
    for head in heads:
        found = [line for name, line in ended.items() if name.startswith(f"check {head}")]
        if len(found) < 2 * len(CUTS):
            raise Unavailable(f"check {head} has not ended")
        if red := [line["name"] for line in found if line["status"] != "ok"]:
            raise Unavailable(f"{red[0]} is red")
    yield from run()
