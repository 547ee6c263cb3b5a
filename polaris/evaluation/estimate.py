"""How many tokens and minutes an evaluation takes: before it draws, by its first half minute, and once its first batch has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polaris.evaluation.samples import Sample
from polaris.evaluation.source import Wanted
from polaris.evaluation.trained import folder_behind
from polaris.observe.early import Early
from polaris.observe.metrics import read_records
from polaris.observe.phrases import count, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Mean tokens of a response, tokens per second (None: not known), and where they were measured."""

    length: float
    speed: float | None
    source: str

    def said(self, responses: int, longest: int) -> str:
        """What so many responses of at most `longest` tokens come to."""
        tokens = responses * min(self.length, longest)
        time = f", {duration(tokens / self.speed)}" if self.speed else ""
        return f"about {count(tokens)} tokens{time} at the pace of {self.source}"


def pace_of_run(model: str) -> Pace | None:
    """The pace of the run that is evaluated: the response length of its last held-out evaluation and the speed of its last step."""
    run = folder_behind(model)
    records = read_records(run / "metrics.jsonl") if run else []
    lengths = [record["eval/response/length_mean"] for record in records if record.get("eval/response/length_mean")]
    speeds = [record["throughput/rollout_tokens_per_s"] for record in records if record.get("throughput/rollout_tokens_per_s")]
    return Pace(length=lengths[-1], speed=speeds[-1] if speeds else None, source="the run's own evaluation and steps") if lengths else None


class Estimate:
    """Of all `wanted` samples, of which this rank draws `share`, the first `batch` at once; `longest` is the limit on response tokens;
    lines begin with `name`. `live`: the source counts the tokens of unfinished samples too, without which it has no early speed."""

    def __init__(
        self, wanted: int, share: Sequence[Wanted], *, longest: int, batch: int, pace: Pace | None, live: bool = True, name: str = ""
    ) -> None:
        self._wanted, self._share, self._longest, self._pace = wanted, len(share), longest, pace
        self._name = name
        self._first = {one.key for one in share[:batch]} if len(share) > batch else set()
        self._batch, self._tokens = len(self._first), 0
        self._begun: float | None = None
        self._early = Early(len(share), longest, silent=not live)

    def before(self) -> str:
        """What is known before drawing: the most tokens there can be, and tokens and minutes at the pace known so far."""
        most = f"{self._name}{self._wanted} samples to draw, at most {count(self._wanted * self._longest)} response tokens"
        later = f"; minutes are estimated when the first {self._batch} have ended" if self._first else ""
        return most + (f"; {self._pace.said(self._wanted, self._longest)}" if self._pace else "") + later

    def during(self, drawn: int, now: float) -> str:
        """Once, by the first half minute, unless the first batch has ended before: how long it takes at most. Else "".

        `drawn` are all tokens drawn so far, `now` is a monotonic clock's reading; the first one is taken for the start.
        """
        self._begun = now if self._begun is None else self._begun
        said = self._early.at(drawn, now)
        return f"{self._name}{said}" if said else ""

    def after(self, sample: Sample, drawn: int, now: float) -> str:
        """Once, when the last of the first batch has ended: tokens of all samples, and how long the rest takes. Else "".

        Only the first batch gives the mean length: of later ones, the short end first.
        """
        self._early.ended(sample.tokens)
        if sample.key not in self._first:
            return ""
        self._first.remove(sample.key)
        self._tokens += sample.tokens
        if self._first:
            return ""
        self._early.silence()
        mean, seconds = self._tokens / self._batch, max(now - (now if self._begun is None else self._begun), 1e-9)
        drawn = max(drawn, self._tokens)
        left = max(0.0, mean * self._share - drawn) / (drawn / seconds)
        return (
            f"{self._name}after the first {self._batch} samples: {count(mean)} tokens a response, {count(drawn / seconds)} tokens/s; about "
            f"{count(mean * self._wanted)} tokens in all, {duration(left)} more"
        )
