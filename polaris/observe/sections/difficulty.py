"""Prompts by how often the model solves them, before and after curation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from polaris.observe import charts
from polaris.observe.markup import figures, note, safe, section
from polaris.observe.phrases import count, duration, left_out, nearest_rates
from polaris.observe.run_files import Result, RunFiles


def difficulty(run: RunFiles) -> str:
    if run.difficulty is None and run.curation is None:
        return ""
    before = (run.curation or {}).get("before") or run.difficulty
    assert before is not None
    measured = before["histogram"]
    left = run.curation["after"]["histogram"] if run.curation else None
    picture = charts.difficulty(list(measured.values()), list(left.values()) if left else None)
    return section("Difficulty", figures(charts.svg(picture)), *(note(fact) for fact in _facts(run.difficulty, run.curation)))


def _facts(measured: Result | None, curation: Result | None) -> Iterator[str]:
    if measured and (column := measured["settings"].get("column")):
        yield (
            f"Pass rates from the prompt set's column {safe(column)}; accuracy {measured['accuracy']:.1%}, "
            f"{measured['informative_share']:.1%} of {measured['prompts']:,} prompts solved sometimes."
        )
    elif measured:
        yield (
            f"Measured before training: {_responses(measured)} for each of {measured['prompts']:,} prompts, "
            f"{count(measured['tokens'])} tokens in {duration(measured['seconds'])}; accuracy {measured['accuracy']:.1%}, "
            f"{measured['informative_share']:.1%} of the prompts solved sometimes, {measured['clip_share']:.1%} of the responses cut off."
        )
    if measured and (fewer := nearest_rates(measured.get("prompts_with_fewer_verdicts", 0), measured["samples_per_prompt"])):
        yield f"{fewer}."
    if curation:
        before, after = curation["before"], curation["after"]
        reasons = ", ".join(f"{number:,} {safe(reason)}" for reason, number in sorted(Counter(curation["dropped"].values()).items()))
        yield (
            f"Dropped: {reasons or 'none'}. Solved sometimes: {before['informative']:,} of {before['prompts']:,} before, "
            f"{after['informative']:,} of {after['prompts']:,} after; "
            f"accuracy {before['accuracy']:.1%} before, {after['accuracy']:.1%} after."
        )


def _responses(measured: Result) -> str:
    samples, fewer = measured["samples_per_prompt"], left_out(measured)
    return f"at most {samples} responses ({fewer})" if fewer else f"{samples} responses"
