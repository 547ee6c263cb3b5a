"""The math grader in processes that can be killed (`polaris.reward.process`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from polaris.reward.extract import BOXED
from polaris.reward.grade import Mode, decide
from polaris.reward.process import Program, WorkerPool
from polaris.types import GroundTruth, Verdict


class GraderPool(WorkerPool):
    """A `WorkerPool` of graders; `form` says where the answer of a response is (`reward.answer`).

    `grade` may be called from any number of threads at once, and from asyncio as `await asyncio.to_thread(pool.grade, items)`.
    An answer that takes longer than `timeout_s` is ungradable("timeout"), one that crashes its worker ungradable("crashed").
    `grade` raises `RunFailed` with the process's last output if a worker cannot start.
    """

    def __init__(self, workers: int | None, timeout_s: float, require_thinking: bool, mode: Mode = "strict", form: str = BOXED) -> None:
        super().__init__(Program(module="polaris.reward.worker"), workers, timeout_s)
        self._require_thinking, self._form = require_thinking, form
        self._mode: Mode = mode

    def grade(self, items: Sequence[tuple[str, GroundTruth]]) -> list[Verdict]:
        """Verdicts on (response, ground truth) pairs, in their order; equal pairs of answer and ground truth are graded once."""
        asked: dict[str, Future[bytes | str]] = {}
        found: list[Verdict | tuple[str, str]] = []
        try:
            for response, truth in items:
                decided = decide(response, truth, require_thinking=self._require_thinking, mode=self._mode, form=self._form)
                if isinstance(decided, Verdict):
                    found.append(decided)
                    continue
                request = json.dumps({"answer": decided, "ground_truth": truth, "mode": self._mode})
                if request not in asked:
                    asked[request] = self.submit(request)
                found.append((decided, request))
            return [one if isinstance(one, Verdict) else _verdict(one[0], asked[one[1]].result()) for one in found]
        finally:
            for future in asked.values():
                future.cancel()


def _verdict(answer: str, reply: bytes | str) -> Verdict:
    return Verdict("ungradable", reply, answer) if isinstance(reply, str) else Verdict(**json.loads(reply))


BATCH = 512


def grade_in_batches(pool: GraderPool, items: Sequence[tuple[str, GroundTruth]], done: Callable[[int], None]) -> list[Verdict]:
    """Verdicts on (response, ground truth) pairs, in their order; `done` gets the number of verdicts after every batch."""
    verdicts: list[Verdict] = []
    for start in range(0, len(items), BATCH):
        verdicts += pool.grade(items[start : start + BATCH])
        done(len(verdicts))
    return verdicts
