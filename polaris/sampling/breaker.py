"""Stop a run whose policy has learned what kills the grader, or whose grader is broken, while the evidence is at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from polaris.errors import RunFailed
from polaris.types import Group

MOST_KILLED = 0.01
"""Share of a step's responses that may cost a grading process its life; one response always may."""


class GradingFailed(RunFailed):
    """Too many responses of a step killed their grading process."""


def stop_if_grading_fails(groups: Sequence[Group], folder: Path) -> None:
    """Raise `GradingFailed` if more than 1 % of the step was killed, with the answers saved to `killed_answers.jsonl` in `folder`.

    Every rank holds all groups, so all ranks raise together; they write the same text.
    """
    killed = [(group.prompt, scored.verdict) for group in groups for scored in group.rollouts if scored.verdict.lost]
    responses = sum(len(group.rollouts) for group in groups)
    if len(killed) <= max(1, MOST_KILLED * responses):
        return
    path = folder / "killed_answers.jsonl"
    lines = [{"prompt": p.id, "ground_truth": p.ground_truth, "answer": v.answer, "reason": v.reason} for p, v in killed]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    raise GradingFailed(
        f"{len(killed)} of {responses} responses killed their grading process, as {killed[0][1].answer!r} did "
        f"({path} has all). If the answers are honest, raise reward.timeout_s and resume with --change; if not, the policy has found a "
        "hole in the grader: "
        "please report them"
    )
