"""What the responses of a run earn: the rewards of `reward.function`, each with its weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from polaris import doors
from polaris.config.process import UNDERLINE
from polaris.config.reward import RewardConfig
from polaris.errors import Refused, RunFailed
from polaris.reward import answer_pattern
from polaris.reward.functions import FIELDS, KEY, Function, build, named, options_of
from polaris.reward.gym import COLUMN, ReasoningGym
from polaris.reward.pool import GraderPool
from polaris.reward.process import Program, WorkerPool
from polaris.reward.protocol import Reward, RewardItem, Rules
from polaris.types import RAISED, GroundTruth, Verdict

Result = Verdict | float
VERDICTS = ("math", "exact", "multiple_choice")
"""Ours that say themselves whether a response is solved."""


class Rewards:
    """Scores responses; a context manager that owns the processes.

    `math` runs as ever: cheap steps here, algebra in workers. A user's code, `format`, `reasoning_gym`, and a regular expression in
    `reward.answer` run in workers of their own, one response at a time; what hangs, crashes or raises there is a lost verdict on that
    response alone.
    """

    def __init__(self, config: RewardConfig, require_thinking: bool) -> None:
        self.has_raised = False
        """Whether its user was told of a reward that raised."""
        self._config, self._names = config, list(config.weights)
        self._rules = Rules(answer=config.answer, require_thinking=require_thinking, success_above=config.success_above)
        self._hosted = [name for name in self._names if _is_hosted(name, config)]
        self._here = {
            name: build(name, options_of(config, name), self._rules) for name in self._names if name not in self._hosted and name != "math"
        }
        self._resources = ExitStack()
        self._math = self._host = None
        if "math" in self._names and "math" not in self._hosted:
            self._math = self._resources.enter_context(GraderPool(config.workers, config.timeout_s, require_thinking, form=config.answer))
        self._process = self._resources.enter_context(_process_pool(config)) if config.process.most else None
        if self._hosted:
            self._host = self._resources.enter_context(WorkerPool(self._program(), config.workers, config.timeout_s))

    def __enter__(self) -> Rewards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.close()

    def wait(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Return when a process has loaded the user's code; calls `on_wait` every second. Raises `RunFailed` if it does not load."""
        if self._host is not None:
            loaded = self._host.submit("null")
            while not futures.wait([loaded], 1.0).done:
                on_wait()
            loaded.result()

    def score(self, items: Sequence[RewardItem]) -> list[Verdict]:
        """What each item earns, with the parts of it where `math` is not the only reward.

        Raises:
            RunFailed: a process cannot start, or the first reward returns other numbers than 0 and 1 without `reward.success_above`.
        """
        asked: list[Future[bytes | str]] = []
        marked: list[Future[bytes | str]] = []
        try:
            if self._host is not None:
                asked = [self._host.submit(json.dumps(_row(item), default=str)) for item in items]
            if self._process is not None:
                marked = [self._process.submit(json.dumps(_asked(item))) for item in items]
            columns: dict[str, Sequence[Result]] = {name: reward.score(items) for name, reward in self._here.items()}
            if self._math is not None:
                columns["math"] = self._math.grade([(item.response, item.ground_truth) for item in items])
            replies = [_results(future.result(), len(self._hosted)) for future in asked]
            results = [future.result() for future in marked]
        finally:
            for future in (*asked, *marked):
                future.cancel()
        columns |= {name: [reply[place] for reply in replies] for place, name in enumerate(self._hosted)}
        verdicts = [self._verdict([columns[name][place] for name in self._names]) for place in range(len(items))]
        return [_with_marks(*pair) for pair in zip(verdicts, results, strict=True)] if marked else verdicts

    def _verdict(self, results: Sequence[Result]) -> Verdict:
        """One verdict of the results of all rewards, in their order."""
        lost = next((one for one in results if isinstance(one, Verdict) and one.lost), None)
        if lost is not None:
            return lost
        first = results[0] if isinstance(results[0], Verdict) else self._solved(results[0])
        if not named(self._config):
            return first
        parts = tuple(one.reward if isinstance(one, Verdict) else one for one in results)
        earned = sum(weight * part for weight, part in zip(self._config.weights.values(), parts, strict=True))
        return replace(first, reward=earned, parts=parts)

    def _solved(self, number: float) -> Verdict:
        above = self._config.success_above
        if above is None and number not in (0, 1):
            raise RunFailed(
                f"{KEY}: {doors.short(self._names[0])} returned {number:g}, so it must be said which rewards count as solved; set "
                "reward.success_above to a number below what a solved response earns, and start again"
            )
        return Verdict("correct" if number > (0 if above is None else above) else "wrong")

    def _program(self) -> Program:
        own = [name for name in self._hosted if doors.is_own(name)]
        told = {
            "rewards": [(name, options_of(self._config, name)) for name in self._hosted],
            "rules": asdict(self._rules),
            "memory_mib": self._config.memory_mib,
            "digests": {name: doors.digest(name, KEY) for name in own},
        }
        hint = f"\nIf it wants more memory, raise reward.memory_mib = {self._config.memory_mib}"
        return Program(module="polaris.reward.host", arguments=(json.dumps(told),), own=bool(own), hint=hint)


def checked_rewards(config: RewardConfig) -> dict[str, Reward | Function]:
    """The rewards, loaded and made in this process for their `check`; nothing is scored with them here.

    Raises:
        Refused: naming the key, for what cannot be a reward, or for options that it does not take.
    """
    answer_pattern.pattern(config.answer, "reward.answer")
    if config.process.marker != UNDERLINE:
        answer_pattern.marker_pattern(config.process.marker)
    if config.success_above is not None and next(iter(config.weights)) in VERDICTS:
        raise Refused(f"reward.success_above has no effect: {next(iter(config.weights))} says itself what is solved; remove it")
    return {name: build(name, options_of(config, name), Rules(answer=config.answer)) for name in config.weights}


def ungradable(rewards: Mapping[str, Reward | Function], ground_truth: GroundTruth) -> str | None:
    """The first reason why no response could earn one of the rewards; None if there is none."""
    for name, reward in rewards.items():
        if not isinstance(reward, Function) and hasattr(reward, "check"):
            with doors.calling(name, KEY, "check"):
                if (reason := reward.check(ground_truth)) is not None:
                    return reason
    return None


def check_columns(rewards: Mapping[str, Reward | Function], rows: Sequence[tuple[Mapping[str, Any], str]]) -> None:
    """Raise `Refused` for a column that a function must be given and that a row, with its `file:row`, has not; also for a row that
    reasoning-gym did not make, where its scorer grades."""
    other = next((source for row, source in rows if COLUMN not in row), None)
    if other is not None and any(isinstance(reward, ReasoningGym) for reward in rewards.values()):
        raise Refused(f'{KEY} = "reasoning_gym" grades rows of reasoning_gym:TASK, and {other} is none; use a reward that knows both')
    for name in (column for reward in rewards.values() if isinstance(reward, Function) for column in reward.columns):
        for row, source in rows:
            if name not in row:
                raise Refused(
                    f"{KEY} takes {name!r}, which is no column of {source} ({', '.join(row)}) and none of {', '.join(FIELDS)}; correct "
                    "the name, give it a default, or set it in reward.options"
                )


def identity(config: RewardConfig) -> dict[str, Any]:
    """What of the rewards decides whether a response is solved, and which results it marks, for results that depend on it; empty for
    `math` alone and boxes."""
    process = {"process": {"marker": config.process.marker, "marks": config.process.marks}} if config.process.most else {}
    if not named(config) and config.answer == "boxed":
        return process
    name = next(iter(config.weights))
    found = {"function": doors.short(name), "options": dict(options_of(config, name)), "answer": config.answer}
    code = {"code": doors.digest(name, KEY)} if doors.is_own(name) else {}
    return {"reward": found | code | {"success_above": config.success_above}} | process


def _process_pool(config: RewardConfig) -> WorkerPool:
    arguments = (config.process.marker, str(config.process.marks))
    return WorkerPool(Program(module="polaris.reward.core_worker", arguments=arguments), config.workers, config.timeout_s)


def _asked(item: RewardItem) -> dict[str, Any]:
    """What the finder of marked results is told of a response; the question is what the user says."""
    question = "\n".join(str(message["content"]) for message in item.messages if message["role"] == "user")
    return {"response": item.response, "question": question or item.prompt, "ground_truth": item.ground_truth}


def _with_marks(verdict: Verdict, reply: bytes | str) -> Verdict:
    """A finder that was killed costs the results, never the verdict."""
    if isinstance(reply, str):
        return replace(verdict, marks=None)
    found = json.loads(reply)
    return replace(verdict, marked=tuple(found["keys"]), marks=found["number"])


def _is_hosted(name: str, config: RewardConfig) -> bool:
    return doors.is_own(name) or name in ("format", "reasoning_gym") or (name in ("math", "exact") and answer_pattern.is_own(config.answer))


def _row(item: RewardItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in RewardItem.__dataclass_fields__}


def _results(reply: bytes | str, count: int) -> list[Result]:
    if isinstance(reply, str):
        return [Verdict("ungradable", reply)] * count
    return [_result(one) for one in json.loads(reply)]


def _result(found: Mapping[str, Any]) -> Result:
    if "trace" in found:
        return Verdict("ungradable", RAISED, trace=found["trace"])
    return Verdict(**found["verdict"]) if "verdict" in found else float(found["number"])
