"""All contests of the kernels."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss
from benchmarks.kernels.contest import Contest
from benchmarks.kernels.size import Size

MODULES = (linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss)
OPERATIONS = tuple(module.__name__.rpartition(".")[2] for module in MODULES)


def contests(size: Size) -> tuple[list[Contest], list[Contest]]:
    """Those of the first shape of every operation, and those of the others."""
    shapes: dict[str, dict[str, Any]] = {}
    first, other = [], []
    for contest in (contest for module in MODULES for contest in module.contests(size)):
        shape = {name: value for name, value in contest.parameters.items() if name != "direction"}
        (first if shapes.setdefault(contest.operation, shape) == shape else other).append(contest)
    return first, other
