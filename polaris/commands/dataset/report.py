"""The findings of `polaris data check` as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from polaris.commands.dataset.check import Findings
from polaris.data import answer_format
from polaris.data.evaluation_sets import EvaluationSet
from polaris.data.gold import Rejected, at, by_reason, shortened
from polaris.data.overlap import LEAST_SHARE, RUN, Match
from polaris.data.problems import Problem, Survey, repeated
from polaris.observe.phrases import clean
from polaris.reward.backslashes import backslash_fault


def check_report(found: Findings, survey: Survey, name: str, show: int, measured: bool) -> list[str]:
    """Lines for a terminal on a `survey` and the findings in its problems; `measured`: lengths are known.

    Every reason and every unequal gold is listed, and `show` rows of everything else.
    """
    total = f"{len(survey.problems)} problems" + (f" in {survey.rows} rows" if survey.rows > len(survey.problems) else "")
    asked = answer_format.findings(map(_words, found.problems)) if found.in_boxes else ()
    lines = [f"{name}: {total}", f"answers: {_counts(found.types) or 'none'}", *asked]
    lines += _damaged(found.problems, show)
    lines += _reasons("rows without a usable problem or answer", survey.broken, show)
    lines += _reasons("rows with the id of another", survey.clashes, show)
    lines += _repeated(survey, show)
    lines += _reasons("ungradable answers", list(found.ungradable.values()), show)
    unequal = [
        f"{_at(found, place)}: \\boxed{{{gold}}} is {verdict.kind}{f' ({verdict.reason})' if verdict.reason else ''}"
        for place, (gold, verdict) in found.unequal.items()
    ]
    lines += _section("answers that are not correct in a box", unequal) if found.in_boxes else ()
    lines += _section("duplicates", [_duplicate(found, *pair) for pair in found.duplicates], show)
    if measured:
        longest = sorted(found.too_long.items(), key=lambda item: -item[1])
        lines += _section("prompts too long", [f"{_at(found, place)}: {length} tokens" for place, length in longest], show)
    lines += _overlaps(found, show) if found.evaluation_sets else ["overlap: not looked for (--against SET)"]
    left = len(found.problems) - len(found.dropped)
    others = {"repeated": repeated(survey.problems), "same id": len(survey.clashes), "unusable": len(survey.broken)}
    dropped = _counts(Counter(found.dropped.values()) + Counter(others))
    return [clean(line) for line in [*lines, f"left: {left} of {survey.rows}" + (f" (dropped: {dropped})" if dropped else "")]]


def _words(problem: Problem) -> str:
    return "\n".join(message["content"] for message in problem.messages)


def _damaged(problems: Sequence[Problem], show: int) -> Iterator[str]:
    """Damaged prompts are named but kept: nobody can know what was lost."""
    faults = [f"{at(one.source, one.id)}: {fault}" for one in problems if (fault := backslash_fault(_words(one)))]
    if faults:
        yield from _section("warning: prompts that look damaged, which are kept (in JSON a backslash is written twice)", faults, show)


def _reasons(title: str, rows: Sequence[Rejected], show: int) -> Iterator[str]:
    if rows or title == "ungradable answers":
        yield f"{title}: {len(rows)}"
    yield from (f"  {line}" for line in by_reason(rows, show))


def _repeated(survey: Survey, show: int) -> Iterator[str]:
    copied = [problem for problem in survey.problems if problem.copies]
    if copied:
        yield f"rows with id and content of an earlier one: {repeated(copied)}, of {len(copied)} problems"
        yield from _section("", [f"{at(one.source, one.id)}: {one.copies} more" for one in copied], show)


def _overlaps(found: Findings, show: int) -> Iterator[str]:
    yield f"overlap: same text, or at least {LEAST_SHARE:.0%} of one problem in shared runs of {RUN} words"
    width = max(len(Path(one.name).name) for one in found.evaluation_sets)
    yield f"  {'set':<{width}}  problems here  problems there  same text  only share a run"
    for one, matches in zip(found.evaluation_sets, found.matches, strict=True):
        overlaps = [match for match in matches if match.overlap]
        here = {match.here for match in overlaps}
        weak = {match.here for match in matches} - here
        exact = len({match.here for match in overlaps if match.exact})
        counts = f"{len(here):>13}  {len({match.there for match in overlaps}):>14}  {exact:>9}  {len(weak):>16}"
        yield f"  {Path(one.name).name:<{width}}  {counts}"
    for one, matches in zip(found.evaluation_sets, found.matches, strict=True):
        yield from _section("", [_overlap(found, one, match) for match in matches if match.overlap], show)


def _overlap(found: Findings, one: EvaluationSet, match: Match) -> str:
    how = "same text" if match.exact else f"{match.share:.0%} in shared runs"
    return f"{_at(found, match.here)} ~ {Path(one.name).name} {one.ids[match.there]}: {how}"


def _duplicate(found: Findings, again: int, first: int) -> str:
    one, other = found.problems[again], found.problems[first]
    golds = [shortened(repr(problem.ground_truth)) for problem in (one, other)]
    differ = one.ground_truth != other.ground_truth
    return f"{_at(found, again)} repeats {other.source}" + (f", answers {' and '.join(golds)}" if differ else "")


def _at(found: Findings, place: int) -> str:
    problem = found.problems[place]
    return at(problem.source, problem.id)


def _section(title: str, items: Sequence[str], show: int | None = None) -> Iterator[str]:
    if title:
        yield f"{title}: {len(items)}"
    shown = items if show is None else items[:show]
    yield from (f"  {item}" for item in shown)
    if len(items) > len(shown):
        yield f"  and {len(items) - len(shown)} more (--show {len(items)})"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
