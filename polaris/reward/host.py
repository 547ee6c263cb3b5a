"""A process for rewards that may hang or crash: a user's code, and regular expressions on text that a policy writes.

Started by `polaris.reward.process` as `python -m polaris.reward.host SECONDS JSON`, the JSON being what `Rewards` tells it; in: the fields
of a `RewardItem`; out: for each reward a verdict, a number, or the traceback of what it raised.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Real
from typing import Any, get_args

from polaris import doors
from polaris.errors import Refused, RunFailed
from polaris.reward.functions import KEY, build
from polaris.reward.protocol import RewardItem, Rules
from polaris.reward.worker import row, serve
from polaris.types import Verdict, VerdictKind

_HALF = 4000


def main() -> None:
    told = json.loads(sys.argv[2])
    try:
        serve(partial(_prepare, told), int(sys.argv[1]), told["memory_mib"] << 20)
    except (Refused, RunFailed) as error:
        print(error, file=sys.stderr, flush=True)  # while the error holds the pipe open: a parent that reads its end kills
        sys.exit(1)


def _prepare(told: Mapping[str, Any]) -> Callable[[Any], Any]:
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)
    rules = Rules(**told["rules"])
    rewards = [build(name, options, rules) for name, options in told["rewards"]]
    for name, digest in told["digests"].items():
        if doors.digest(name, KEY) != digest:
            raise RunFailed(f"the file of {doors.short(name)} was edited while the run goes on; put it back as it was")
    return lambda request: [_score(reward, request) for reward in rewards if request is not None]


def _score(reward: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    truth = request["ground_truth"]
    item = RewardItem(**{**request, "ground_truth": tuple(truth) if isinstance(truth, list) else truth})
    try:
        return _result(reward.score([item]))
    except (Exception, SystemExit) as error:
        hint = "It may need more than reward.memory_mib.\n" if isinstance(error, MemoryError) else ""
        return {"trace": _shortened(doors.trace_of(error) + hint)}


def _result(scored: Any) -> dict[str, Any]:
    """The one result in a list. Raises `ValueError` unless it is a verdict or a finite number."""
    if not isinstance(scored, Iterable):
        raise ValueError(f"score returned {type(scored).__name__}, and not a list with a result for each item")
    results = list(scored)
    if len(results) != 1:
        raise ValueError(f"score returned {len(results)} results for 1 item")
    (value,) = results
    if not isinstance(value, Verdict):
        return {"number": _number(value)}
    if value.kind not in get_args(VerdictKind):
        raise ValueError(f"there is no verdict {value.kind!r}; write {', '.join(get_args(VerdictKind))}")
    texts = {"reason": str(value.reason), "answer": None if value.answer is None else str(value.answer)}
    return {"verdict": row(value) | texts | {"reward": _number(value.reward)}}


def _shortened(trace: str) -> str:
    """A trace with its middle cut out where it is longer than a page: an exception may quote a whole response."""
    return trace if len(trace) <= 2 * _HALF else f"{trace[:_HALF]}\n[...]\n{trace[-_HALF:]}"


def _number(value: Any) -> float:
    value = value.item() if callable(getattr(value, "item", None)) else value  # numpy, torch
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"the reward {value!r} is no finite number")
    return float(value)


if __name__ == "__main__":
    main()
