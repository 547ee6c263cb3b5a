"""How many tokens and minutes an evaluation takes: before it draws, and once its first batch has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from polaris.evaluation.samples import Sample
from polaris.evaluation.source import Wanted
from polaris.evaluation.trained import folder_behind
from polaris.observe.metrics import read_records
from polaris.observe.phrases import count, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Mean tokens of a response, tokens per second (None: not known), and where they were measured."""

    length: float
    speed: float | None
    source: str


def pace_of_run(model: str) -> Pace | None:
    """The pace of the run that is evaluated: the response length of its last held-out evaluation and the speed of its last step."""
    run = folder_behind(model)
    records = read_records(run / "metrics.jsonl") if run else []
    lengths = [record["eval/response/length_mean"] for record in records if record.get("eval/response/length_mean")]
    speeds = [record["throughput/rollout_tokens_per_s"] for record in records if record.get("throughput/rollout_tokens_per_s")]
    return Pace(length=lengths[-1], speed=speeds[-1] if speeds else None, source="the run's own evaluation and steps") if lengths else None


class Estimate:
    """Of all `wanted` samples, of which this rank draws `share`, the first `batch` at once; `longest` is the limit on response tokens;
    lines begin with `name`."""

    def __init__(self, wanted: int, share: Sequence[Wanted], *, longest: int, batch: int, pace: Pace | None, name: str = "") -> None:
        self._wanted, self._share, self._longest, self._pace = wanted, len(share), longest, pace
        self._name = name
        self._first = {one.key for one in share[:batch]} if len(share) > batch else set()
        self._batch, self._tokens, self._begun = len(self._first), 0, 0.0

    def before(self) -> str:
        """What is known before drawing: the most tokens there can be, and tokens and minutes at the pace known so far."""
        most = f"{self._name}{self._wanted} samples to draw, at most {count(self._wanted * self._longest)} response tokens"
        later = f"; minutes are estimated when the first {self._batch} have ended" if self._first else ""
        if self._pace is None:
            return most + later
        tokens = self._wanted * min(self._pace.length, self._longest)
        minutes = f", {duration(tokens / self._pace.speed)}" if self._pace.speed else ""
        return f"{most}; about {count(tokens)} tokens{minutes} at the pace of {self._pace.source}{later}"

    def started(self) -> None:
        """The engine draws from now on."""
        self._begun = self._begun or time.monotonic()

    def after(self, sample: Sample, drawn: int) -> str:
        """Once, when the last of the first batch has ended: tokens of all samples, and how long the rest takes. Else "".

        `drawn` are all tokens drawn so far. Only the first batch gives the mean length: of later ones, the short end first.
        """
        if sample.key not in self._first:
            return ""
        self._first.remove(sample.key)
        self._tokens += sample.tokens
        if self._first:
            return ""
        mean, seconds = self._tokens / self._batch, max(time.monotonic() - self._begun, 1e-9)
        drawn = max(drawn, self._tokens)
        left = max(0.0, mean * self._share - drawn) / (drawn / seconds)
        return (
            f"{self._name}after the first {self._batch} samples: {count(mean)} tokens a response, {count(drawn / seconds)} tokens/s; about "
            f"{count(mean * self._wanted)} tokens in all, {duration(left)} more"
        )
