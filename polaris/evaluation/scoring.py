"""Both graders' verdicts on samples while others are still being drawn, and the running score."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from polaris.config.process import ProcessConfig
from polaris.config.reward import RewardConfig
from polaris.data.problems import Problem
from polaris.evaluation.samples import Key, Sample
from polaris.evaluation.suites import Suite
from polaris.reward.built_in import MultipleChoice
from polaris.reward.extract import BOXED, END_OF_THINKING, NO_END
from polaris.reward.grade import Mode
from polaris.reward.pool import GraderPool
from polaris.reward.protocol import RewardItem, Rules
from polaris.reward.rewards import Rewards
from polaris.reward.thinking import Thinking, by_responses, opens_thinking
from polaris.types import FinishReason, Verdict

_THREADS = 8
"""Samples graded at the same time; the pools' processes bound the work."""
_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A sample without its text, with verdicts by our rules (`strict`) and by the recipe's published ones (`recipe`)."""

    rope_factor: float
    key: Key
    tokens: int
    finish_reason: FinishReason
    strict: Verdict
    recipe: Verdict
    opened: bool = False
    """The response opens thinking by itself."""
    ended: bool = False
    """The response ends its thinking."""


def decide_thinking(scored: Sequence[Scored], setting: bool | Literal["auto"], template: Thinking | None) -> Thinking:
    """Whether an answer needs `</think>`: as set, else as the chat template says, else as most finished responses do."""
    if setting != "auto":
        return Thinking(required=setting, why="require_thinking is set so")
    ended = [one for one in scored if one.finish_reason == "stop"]
    return template or by_responses(one.opened for one in ended or scored)


def judged(scored: Sequence[Scored], thinking: Thinking) -> list[Scored]:
    """The same samples with the verdicts that grading by `thinking` would have given."""
    unended = Verdict("no_answer", NO_END)
    return [replace(one, strict=unended) if thinking.required and not one.ended else one for one in scored]


class Scoring:
    """Grades in the background; `drain` and `collect` wait. A context manager that owns the grading processes.

    In the place of our rules, sets of multiple choice are graded by the letter that a response chooses (no process: cheap and bounded), and
    tasks of reasoning-gym by their own scorer, whose verdict also stands for the recipe's, which knows no such task; from a full score on,
    or above `reward.success_above`, a response is correct. The scorer and our rules look for the answer where `reward.answer` says, the
    recipe's in the box.
    "auto" requires no `</think>` here; `judged` corrects the verdicts once all samples are known.
    """

    def __init__(self, reward: RewardConfig, suites: Sequence[Suite]) -> None:
        self.problems: dict[tuple[str, str], Problem] = {(s.name, p.id): p for s in suites for p in s.problems}
        self._rules = {suite.name: suite.rules for suite in suites}
        self._resources = ExitStack()
        self._threads = self._resources.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="scoring"))
        self._reward, self._pools = reward, dict[Mode, GraderPool]()
        self._letters = MultipleChoice(Rules(require_thinking=reward.require_thinking is True))
        plain = replace(reward, options={}, process=ProcessConfig())
        graders = {"reasoning_gym": replace(plain, function="reasoning_gym")}
        if reward.answer != BOXED:
            graders["math"] = replace(plain, function="math", success_above=None)
        self._own = {
            rules: self._resources.enter_context(Rewards(graders[rules], reward.require_thinking is True))
            for rules in graders.keys() & self._rules.values()
        }
        rules = set(self._rules.values())
        if "math" in rules - self._own.keys():
            self._pool("strict")
        if rules != {"reasoning_gym"}:
            self._pool("deepscaler")
        self._scored: list[Future[Scored]] = []
        self._lock = threading.Lock()
        self._tally: dict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._resources.close()  # the graders first, so that this waits only for answers in progress

    @property
    def strict(self) -> GraderPool:
        """Our rules, which also say which answers are the same. Not for several threads at once."""
        return self._pool("strict")

    def _pool(self, mode: Mode) -> GraderPool:
        """The graders of a mode, which start when they are first wanted: they import for seconds, and tasks want them for votes alone."""
        if mode not in self._pools:
            # The recipe's evaluation, unlike its training, does not look for </think>.
            required = mode == "strict" and self._reward.require_thinking is True
            self._pools[mode] = self._resources.enter_context(GraderPool(self._reward.workers, self._reward.timeout_s, required, mode))
        return self._pools[mode]

    def begin(self) -> None:
        """Reset the running score."""
        with self._lock:
            self._tally.clear()

    def submit(self, rope_factor: float, sample: Sample) -> None:
        self._scored.append(self._threads.submit(self._score, rope_factor, sample))

    def running(self) -> str:
        """Share of correct samples per set so far, such as `aime24 12.5% of 64`."""
        with self._lock:
            return ", ".join(f"{name} {sum(rewards) / len(rewards):.1%} of {len(rewards)}" for name, rewards in self._tally.items())

    def drain(self, should_stop: Callable[[], bool]) -> bool:
        """Wait for the verdicts on all submitted samples; False if a stop was requested first."""
        while wait(self._scored, timeout=_POLL_S).not_done:
            if should_stop():
                return False
        return True

    def collect(self) -> list[Scored]:
        """All submitted samples, in that order. Raises `RuntimeError` if a grading process cannot start."""
        return [future.result() for future in self._scored]

    def _score(self, rope_factor: float, sample: Sample) -> Scored:
        strict, recipe = self._verdicts(sample.response, self.problems[sample.key[:2]], self._rules[sample.key.suite])
        with self._lock:
            self._tally[sample.key.suite].append(strict.reward)
        return Scored(
            rope_factor=rope_factor,
            key=sample.key,
            tokens=sample.tokens,
            finish_reason=sample.finish_reason,
            strict=strict,
            recipe=recipe,
            opened=opens_thinking(sample.response),
            ended=END_OF_THINKING in sample.response,
        )

    def _verdicts(self, response: str, problem: Problem, rules: str) -> tuple[Verdict, Verdict]:
        item = (response, problem.ground_truth)
        if rules == "reasoning_gym":
            (scored,) = self._own[rules].score([RewardItem(response=response, ground_truth=problem.ground_truth, row=problem.row)])
            solved = replace(scored, reward=float(scored.kind == "correct"))
            return solved, solved
        (recipe,) = self._pools["deepscaler"].grade([item])
        if rules in self._own:
            (strict,) = self._own[rules].score([RewardItem(response=response, ground_truth=problem.ground_truth)])
        elif rules == "multiple_choice":
            (strict,) = self._letters.score([RewardItem(response=response, ground_truth=problem.ground_truth)])
        else:
            (strict,) = self._pools["strict"].grade([item])
        return strict, recipe
