"""Which problems of the evaluation sets are also training data, and the accuracy with and without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from polaris.algorithm.rates import wilson_interval
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.data.conversations import read_conversation
from polaris.data.evaluation_sets import EvaluationSet, matches_by_set, read_evaluation_sets
from polaris.data.normalise import without_instruction
from polaris.data.prompts import hold_out
from polaris.data.reading import PromptSource, Reading, training_sources
from polaris.data.rows import read_messages, user_text
from polaris.data.sources import read_rows
from polaris.doors import short
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import Suite
from polaris.evaluation.trained import lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """`against` are the sets that were looked through, `unread` those of the run that could not be read any more. `problems` are the ids
    of each evaluation set that overlap with one of them (`polaris.data.overlap`)."""

    against: Sequence[str] = ()
    unread: Sequence[str] = ()
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def describe(self) -> dict[str, str]:
        """One line, if anything was looked through."""
        if not self.against and not self.unread:
            return {}
        found = ", ".join(f"{len(ids)} of {name}" for name, ids in self.problems.items() if ids) or "none"
        unread = f"; {', '.join(self.unread)} cannot be read" if self.unread else ""
        return {"overlap": f"{found} also in {', '.join(self.against)}{unread}"}


def contamination(settings: EvalSettings, suites: Sequence[Suite]) -> Contamination:
    """Look for the problems in the sets of `--against`, and in those that the evaluated run and the runs before it were trained on.

    What a run's own `data.decontaminate` has removed, and what its `eval.fraction` holds out, was not trained on and does not count.
    Raises `ValueError` for a set of `--against` that cannot be read; one of a run's that is gone is named instead.
    """
    asked = [_asked(suite, settings.prompt_suffix) for suite in suites]
    given = {one.name: list(one.texts) for one in read_evaluation_sets(settings.against, "train")}
    unread = list[str]()
    for name, texts_of in _trainings(settings.model.path):
        try:
            given[name] = [*given.get(name, ()), *texts_of()]  # two runs may have drawn from sets of one name
        except Refused:
            unread.append(name)
    found: dict[str, set[str]] = {suite.name: set() for suite in suites}
    for texts in given.values():
        for one, matches in zip(asked, matches_by_set(texts, asked), strict=True):
            found[one.name] |= {one.ids[match.there] for match in matches if match.overlap}
    problems = {name: sorted(ids) for name, ids in found.items()}
    return Contamination(against=list(given), unread=unread, problems=problems)


def accuracy_apart(numbers: Mapping[str, Any], overlapping: Sequence[str]) -> dict[str, Any]:
    """avg@n of the problems that overlap and of the others, each with its interval; None where there are none."""
    shares = {problem: count / numbers["samples"] for problem, count in numbers["correct"].items()}
    within = [shares[problem] for problem in overlapping]
    without = [share for problem, share in shares.items() if problem not in set(overlapping)]
    return {"problems": list(overlapping), "within": _mean(within), "without": _mean(without)}


def _asked(suite: Suite, suffix: str) -> EvaluationSet:
    texts = without_instruction([problem.text.rstrip().removesuffix(suffix) for problem in suite.problems])
    return EvaluationSet(name=suite.name, ids=tuple(problem.id for problem in suite.problems), texts=tuple(texts))


def _trainings(model: str) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Name and reader of every set that the run behind `model`, and those that it began with, were trained on."""
    for config in lineage(model):
        if isinstance(config, SftConfig):
            yield short(config.data.path), partial(_imitated, config)
        else:
            yield from ((short(source.path), partial(_trained_on, source, config)) for source in training_sources(config.data))


def _trained_on(source: PromptSource, config: RunConfig) -> list[str]:
    rows = read_rows(resolve(source.path), source.split, source.reading)
    read = [user_text(read_messages(row, place, source.reading)) for place, row in rows]
    fraction = config.eval.fraction
    held = (lambda _: False) if fraction is None else hold_out(fraction, config.seed)
    texts = without_instruction([text for text in read if not held(text)])
    removed = read_evaluation_sets(config.data.decontaminate, config.eval.split)
    gone = {match.here for matches in matches_by_set(texts, removed) for match in matches if match.overlap}
    return [text for place, text in enumerate(texts) if place not in gone]


def _imitated(config: SftConfig) -> list[str]:
    data = config.data
    rows = read_rows(resolve(data.path), data.split, Reading(subset=data.subset, options=data.options))
    chats = [read_conversation(row, place, data.columns) for place, row in rows]
    fraction = config.eval.fraction
    shown = [chat for chat in chats if fraction is None or not chat.held_out(fraction, config.seed)]
    return without_instruction([user_text([dict(message) for message in chat.messages]) for chat in shown])


def _mean(shares: Sequence[float]) -> dict[str, float] | None:
    if not shares:
        return None
    low, high = wilson_interval(np.array(shares))
    return {"mean": float(np.mean(shares)), "low": low, "high": high}
