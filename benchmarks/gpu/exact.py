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
from benchmarks.kernels.peers import LINEAR_LOGPROB, Unavailable, load

MOST = dict(zip(FACTS, (1e-4, 1e-4, 4e-3, 4e-3), strict=True))
"""Errors against float64 that are allowed: nats, and shares of a bfloat16 gradient's norm."""
CUTS = (0, 13)
"""Columns taken off the vocabulary: both parts end within a tile."""


def check(head: str, call: Call, device: torch.device) -> Iterator[Line]:
    """Log-probs, entropies and gradients against float64 at the head's real size, with targets from the whole vocabulary, for all of it
    and for a part that ends within a tile; the same bits in a second call, and in another order of the rows."""
    hidden, weight, _ = draw(head, 48 if call.small else 512, device)
    function = load(LINEAR_LOGPROB, "polaris", device)
    for cut in CUTS:
        part = weight[: len(weight) - cut].detach().clone()
        targets = torch.randint(len(part), (len(hidden),), generator=torch.Generator(device).manual_seed(2), device=device)
        own, exact = (hidden, part, targets), (hidden.detach().double(), part.double(), targets)
        found = [value for value in evaluate(function, own, with_entropy=True) if value is not None]
        again = [value for value in evaluate(function, own, with_entropy=True) if value is not None]
        values = dict(zip(FACTS, errors(found, evaluate(truth, exact, with_entropy=True)), strict=True))
        wrong = [f"{fact} {error:.1e} is above {MOST[fact]:.0e}" for fact, error in values.items() if not error <= MOST[fact]]
        if not all(map(torch.equal, found, again)):
            wrong.append("a second call gave other bits")
        if not same_in_another_order(function, own, found[:2]):
            wrong.append("a row's bits depend on its place")
        line = Line(name=f"check {head}, {len(part)} columns", values=values, status="failed" if wrong else "ok", reason="; ".join(wrong))
        yield line
        del exact, found, again
        free()


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
        if len(found) < len(CUTS):
            raise Unavailable(f"check {head} has not ended")
        if red := [line["name"] for line in found if line["status"] != "ok"]:
            raise Unavailable(f"{red[0]} is red")
    yield from run()
