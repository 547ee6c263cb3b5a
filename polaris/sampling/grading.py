"""Grades rollouts in the background, as they end, while the engine draws the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from polaris.reward.protocol import RewardItem
from polaris.sampling.context import SamplingContext
from polaris.types import Prompt, Rollout, ScoredRollout

_THREADS = 8
"""Responses graded at the same time; the grader's processes bound the work."""


class Grading:
    """A context manager; left early, it drops what is not graded. `limit` are the most tokens that a response may have.

    `on_graded` hears of each response in one of the threads.
    """

    def __init__(
        self, context: SamplingContext, prompts: Mapping[str, Prompt], limit: int, on_graded: Callable[[ScoredRollout], None]
    ) -> None:
        self._context, self._prompts, self._limit, self._on_graded = context, prompts, limit, on_graded
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="grading")
        self._asked: list[Future[ScoredRollout]] = []
        self._checked = 0

    def __enter__(self) -> Grading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def add(self, rollout: Rollout) -> None:
        """A response has ended."""
        self._asked.append(self._threads.submit(self._grade, rollout))

    def check(self) -> None:
        """Raise what a grading has raised, without waiting for any."""
        while self._checked < len(self._asked) and self._asked[self._checked].done():
            self._asked[self._checked].result()
            self._checked += 1

    def wait(self) -> None:
        """Until all responses so far are graded. Raises what a grading has raised."""
        for future in self._asked[self._checked :]:
            future.result()
        self._checked = len(self._asked)

    def scored(self) -> list[ScoredRollout]:
        """All responses so far, in the order in which they ended; waits, and raises, as `wait`."""
        self.wait()
        return [future.result() for future in self._asked]

    def _grade(self, rollout: Rollout) -> ScoredRollout:
        prompt = self._prompts[rollout.prompt_id]
        text = str(self._context.tokenizer.decode(rollout.tokens.tolist(), skip_special_tokens=True))
        item = RewardItem(
            response=text,
            ground_truth=prompt.ground_truth,
            prompt=prompt.text,
            messages=prompt.messages,
            finish_reason=rollout.finish_reason,
            length=len(rollout.tokens),
            limit=self._limit,
            row=prompt.row,
        )
        (verdict,) = self._context.grader.score([item])
        scored = ScoredRollout(rollout=rollout, text=text, verdict=verdict)
        self._on_graded(scored)
        return scored
