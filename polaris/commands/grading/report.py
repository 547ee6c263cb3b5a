"""The outcome of `polaris grade` as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from polaris.commands.grading.grade_file import Disagreement, Summary
from polaris.data.gold import at, by_reason, shortened
from polaris.observe.phrases import clean
from polaris.reward import no_answer
from polaris.reward.grade import GRADER_VERSION, Mode

_SHOWN_GOLDS = 10


def grade_report(summary: Summary, name: str, mode: Mode, thinking: bool = False) -> list[str]:
    """Lines for a terminal; every disagreement is listed. `thinking`: an answer counts only after `</think>`."""
    return [clean(line) for line in _lines(summary, name, mode, thinking)]


def _lines(summary: Summary, name: str, mode: Mode, thinking: bool) -> Iterator[str]:
    n = str(summary.most) if summary.least == summary.most else f"{summary.least}-{summary.most}"
    graded_by = f"grader {GRADER_VERSION} ({mode}{', an answer counts only after </think>' if thinking else ''})"
    yield f"{name}: {summary.responses} responses to {summary.problems} problems, {graded_by}"
    yield f"avg@{n}      {summary.avg:.2%}"
    yield f"pass@{n}     {summary.passed:.2%}"
    why = f": {no_answer.in_words(summary.missing)}" if 2 * summary.no_answer > summary.responses else ""
    yield f"no answer  {summary.no_answer / summary.responses:.2%} ({summary.no_answer}){why}"
    yield f"ungradable {summary.ungradable}, of which killed {summary.killed}"
    if summary.bad_golds:
        yield f"rows with an ungradable gold answer: {len(summary.bad_golds)}; no response to them can be correct"
        yield from (f"  {line}" for line in by_reason(summary.bad_golds, _SHOWN_GOLDS))
    if summary.compared:
        agreed = summary.compared - len(summary.disagreements)
        yield f"agreement with the reference: {agreed} of {summary.compared} ({agreed / summary.compared:.2%})"
        yield from map(_disagreement, summary.disagreements)


def _disagreement(found: Disagreement) -> str:
    row, verdict = found.graded.row, found.graded.verdicts[found.response]
    place = f" response {found.response + 1} of {len(row.responses)}" if len(row.responses) > 1 else ""
    ours = verdict.kind + (f" ({verdict.reason})" if verdict.reason else "")
    gold = row.ground_truth if not isinstance(row.ground_truth, tuple) else " | ".join(map(str, row.ground_truth))
    reference = "correct" if found.reference else "not correct"
    return f"  {at(row.source, row.id)}{place}: answer {_shown(verdict.answer)}, gold {_shown(gold)}: grader {ours}, reference {reference}"


def _shown(value: object) -> str:
    return shortened("none" if value is None else str(value), 80)
