"""Prompts by how often the model solves them, before and after curation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from polaris.observe.bars import Bar, bar_chart
from polaris.observe.markup import figure, note, safe, section
from polaris.observe.phrases import count, duration
from polaris.observe.run_files import Result, RunFiles


def difficulty(run: RunFiles) -> str:
    if run.difficulty is None and run.curation is None:
        return ""
    before = (run.curation or {}).get("before") or run.difficulty
    assert before is not None
    measured = before["histogram"]
    left = run.curation["after"]["histogram"] if run.curation else None
    bars = [
        Bar(
            label=safe(label),
            parts=[("measured", size)],
            front=("s0", left[label]) if left else None,
            notes=_sizes(size, size if left is None else left[label]),
        )
        for label, size in measured.items()
    ]
    keys = [("measured", f"measured: {sum(measured.values()):,}")]
    if left:
        keys.append(("s0", f"left after curation: {sum(left.values()):,}"))
    chart = figure("Prompts by solved responses (hard to easy)", bar_chart(bars, "prompts by solved responses"), keys)
    return section("Difficulty", f'<div class="charts">{chart}</div>', *(note(fact) for fact in _facts(run.difficulty, run.curation)))


def _sizes(measured: int, left: int) -> tuple[str, ...]:
    """The lines above a bar."""
    return (count(measured),) if measured == left else (count(measured), f"\u2192 {count(left)}")


def _facts(measured: Result | None, curation: Result | None) -> Iterator[str]:
    if measured and (column := measured["settings"].get("column")):
        yield (
            f"Pass rates from the prompt set's column {safe(column)}; accuracy {measured['accuracy']:.1%}, "
            f"{measured['informative_share']:.1%} of {measured['prompts']:,} prompts solved sometimes."
        )
    elif measured:
        yield (
            f"Measured before training: {measured['samples_per_prompt']} responses for each of {measured['prompts']:,} prompts, "
            f"{count(measured['tokens'])} tokens in {duration(measured['seconds'])}; accuracy {measured['accuracy']:.1%}, "
            f"{measured['informative_share']:.1%} of the prompts solved sometimes, {measured['clip_share']:.1%} of the responses cut off."
        )
    if curation:
        before, after = curation["before"], curation["after"]
        reasons = ", ".join(f"{number:,} {safe(reason)}" for reason, number in sorted(Counter(curation["dropped"].values()).items()))
        yield (
            f"Dropped: {reasons or 'none'}. Solved sometimes: {before['informative']:,} of {before['prompts']:,} before, "
            f"{after['informative']:,} of {after['prompts']:,} after; "
            f"accuracy {before['accuracy']:.1%} before, {after['accuracy']:.1%} after."
        )
