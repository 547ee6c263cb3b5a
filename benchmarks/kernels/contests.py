"""All contests of the kernels, the most valuable first."""

from __future__ import annotations

from benchmarks.kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss
from benchmarks.kernels.contest import Contest
from benchmarks.kernels.size import Size

MODULES = (linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss)
OPERATIONS = tuple(module.__name__.rpartition(".")[2] for module in MODULES)


def contests(size: Size) -> list[Contest]:
    """The first shape of every operation comes before the others."""
    every = [contest for module in MODULES for contest in module.contests(size)]
    first = {operation: next(c.parameters for c in every if c.operation == operation) for operation in OPERATIONS}

    def is_first(contest: Contest) -> bool:
        shape, wanted = ({k: v for k, v in p.items() if k != "direction"} for p in (contest.parameters, first[contest.operation]))
        return shape == wanted

    return sorted(every, key=is_first, reverse=True)
