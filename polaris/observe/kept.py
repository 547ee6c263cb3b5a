"""The kept rollouts of a run as conversations, for `polaris sft`: rejection sampling."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.observe.metrics import read_records

_OPEN = re.compile(r"<think>\s*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """`rows` of `kept` rollouts; the others are `cut` off at their limit, `wrong`, `repeated`, or `over` the cap of their problem."""

    rows: list[dict[str, Any]]
    kept: int
    cut: int
    wrong: int
    repeated: int
    over: int

    def __str__(self) -> str:
        left = {"cut off": self.cut, "not correct": self.wrong, "repeated": self.repeated, "beyond the cap": self.over}
        out = ", ".join(f"{count:,} {why}" for why, count in left.items() if count)
        return f"{len(self.rows):,} of {self.kept:,} kept rollouts" + (f" (left out: {out})" if out else "")


def conversations(run: Path, correct: bool, per_problem: int | None) -> Conversations:
    """Each kept rollout once, as the messages of its prompt and the assistant's as its completion (TRL's names), so that worked examples
    in a prompt are not trained on. The last steps come first, so that a cap of `per_problem` responses keeps those of the best policy. A
    response that was cut off has no end to imitate, and is left out.

    Raises:
        Refused: the run has kept no rollouts, or an older version has kept them without their messages.
    """
    files = sorted((run / "rollouts").glob("step-*.jsonl"), reverse=True)
    counts, taken, seen = Counter[str](), Counter[str](), set[tuple[str, str]]()
    rows = []
    for rollout in (one for file in files for one in read_records(file)):
        if "messages" not in rollout:
            raise Refused(f"{run} has kept its rollouts without their messages, as older versions did; sample again")
        problem, response = rollout["prompt"], response_of(rollout)
        counts["kept"] += 1
        why = (
            "cut" if rollout["finish_reason"] == "length"
            else "wrong" if correct and rollout["verdict"] != "correct"
            else "repeated" if (problem, response) in seen
            else "over" if per_problem is not None and taken[problem] >= per_problem
            else ""
        )  # fmt: skip
        seen.add((problem, response))
        counts[why] += 1
        if not why:
            taken[problem] += 1
            completion = [{"role": "assistant", "content": response}]
            rows.append({"prompt": rollout["messages"], "completion": completion, **dict(_facts(rollout))})
    if not counts["kept"]:
        raise Refused(f"{run} has kept no rollouts; set observe.samples_per_step (a whole step: prompts x samples), and train")
    return Conversations(rows=rows, **{name: counts[name] for name in ("kept", "cut", "wrong", "repeated", "over")})


def response_of(rollout: Mapping[str, Any]) -> str:
    """What the assistant says: the response, behind the `<think>` that the chat template may have written for it."""
    opened = _OPEN.search(rollout["prompt"])
    return (opened[0] if opened else "") + str(rollout["response"])


def _facts(rollout: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("step", "verdict", "reward", "ground_truth"):
        yield name, rollout[name]
