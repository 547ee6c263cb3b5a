"""The reward `reasoning_gym`: a task's own scorer on a response's answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from polaris.errors import RunFailed
from polaris.reward.answer_pattern import answer_of, pattern
from polaris.reward.attempt import attempt
from polaris.reward.gym_task import Task, dataset, require_package
from polaris.reward.protocol import RewardItem, Rules
from polaris.types import GroundTruth, Verdict

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

COLUMN = "reasoning_gym"
"""The row's column that says which entry it is: the fields of its `Task`, and `index`."""


class ReasoningGym:
    """What the task's `score_answer` gives for the answer that `reward.answer` finds, between 0 and 1; solved from 1 on, or above
    `reward.success_above`.

    A scorer that raises has got an answer that it cannot read, which is wrong. One that hangs is killed with its process, as all rewards.
    """

    columns = (COLUMN,)

    def __init__(self, rules: Rules) -> None:
        pattern(rules.answer, "reward.answer")
        require_package()
        self._rules = rules

    def check(self, ground_truth: GroundTruth) -> str | None:
        """None: a task's scorer accepts some answer, also where the package gives none."""
        return None

    def score(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._score(item) for item in items]

    def _score(self, item: RewardItem) -> Verdict:
        answer = answer_of(item.response, self._rules.answer, self._rules.require_thinking)
        if isinstance(answer, Verdict):
            return answer
        place = dict(item.row[COLUMN])
        index, task = place.pop("index"), json.dumps(place)
        entry = _entry(task, index)
        if entry["question"] != item.row["question"]:
            raise RunFailed(f"{item.row['id']} is another question in this process; which version of reasoning-gym made the rows?")
        found = attempt(lambda: float(_dataset(task).score_answer(answer, entry)))
        if isinstance(found, Exception):  # a scorer that cannot read the answer says that it is wrong
            return Verdict("wrong", f"its scorer raised {type(found).__name__}", answer)
        score, above = min(1.0, max(0.0, found)), self._rules.success_above
        solved = score >= 1 if above is None else score > above
        return Verdict("correct" if solved else "wrong", f"score {score:g}", answer, reward=score)


@lru_cache(64)
def _dataset(task: str) -> ProceduralDataset:
    return dataset(Task(**json.loads(task)))


@lru_cache(256)
def _entry(task: str, index: int) -> dict[str, Any]:
    return _dataset(task)[index]
