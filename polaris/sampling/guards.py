"""Stop a run whose responses cannot be graded, or have no answer, while the evidence is at hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from polaris.config.schema import RunConfig
from polaris.data import answer_format
from polaris.errors import RunFailed
from polaris.files import write_atomically
from polaris.reward import no_answer
from polaris.reward.extract import EMPTY_BOX, NO_BOX, NO_END, UNFINISHED
from polaris.sampling.context import SamplingContext
from polaris.types import Group, Prompt, ScoredRollout

MOST_KILLED = 0.01
"""Share of a step's responses that may cost a grading process its life; one response always may."""
_KEPT = 16
"""Most responses without an answer that are written down as evidence."""


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
        "hole in the grader: please report them"
    )


class NoAnswers(RunFailed):
    """No response of the first ones has an answer: every reward is 0 for a formal reason."""


def answers_missing(scored: Iterable[ScoredRollout]) -> dict[str, int]:
    """How many responses have no answer, by the reason."""
    return no_answer.count(no_answer.reason(one.verdict, one.rollout.finish_reason == "length") for one in scored)


def stop_without_answers(context: SamplingContext, groups: Sequence[Group], where: str, limit: int) -> None:
    """Raise `NoAnswers` if none of the responses, of at most `limit` tokens, has an answer; some of them are kept in `no_answers.jsonl`.

    Every rank holds all groups, so all ranks raise together.
    """
    everything = [(group.prompt, scored) for group in groups for scored in group.rollouts]
    missing = answers_missing(scored for _, scored in everything)
    if sum(missing.values()) < len(everything):
        return
    path = context.config.folder / "no_answers.jsonl"
    if context.world.is_main:
        lines = [
            {"prompt": p.text, "response": s.text, "reason": s.verdict.reason, "finish_reason": s.rollout.finish_reason}
            for p, s in everything[:: -(-len(everything) // _KEPT)]
        ]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    prompts = [group.prompt for group in groups]
    raise no_answers(where, missing, prompts, context.config, limit, f" {path} has some of them.")


def no_answers(
    where: str, missing: Mapping[str, int], prompts: Sequence[Prompt], config: RunConfig, limit: int, evidence: str = ""
) -> NoAnswers:
    """The error if no response has an answer: the counts in `missing`, and the remedy for each reason."""
    asked = answer_format.forms(prompt.text for prompt in prompts)
    remedies = {**_REMEDIES, no_answer.CUT_OFF: f"allow more than {limit} tokens (max_response_tokens)"}
    found = [remedies[reason] for reason in missing if reason in remedies]
    if not asked[answer_format.BOX]:
        found = [*(remedy for remedy in found if remedy != _PROMPTED), _ASK]
    return NoAnswers(
        f"{where}: none of the {sum(missing.values())} responses has an answer ({no_answer.in_words(missing)}), so every reward is 0; "
        f"nothing was trained. Boxes are graded, and the prompts ask for: {answer_format.in_words(asked)}.{evidence} "
        f"To mend it: {'; '.join(dict.fromkeys(found))}. Then start again under another --name, or with `polaris train --fresh`"
    )


_ASK = f"set {answer_format.REMEDY}"
_PROMPTED = f"write a worked example into the prompts, begin with an instruction-tuned model, or set {answer_format.REMEDY}"
_REMEDIES = {
    NO_BOX: _PROMPTED,
    EMPTY_BOX: _PROMPTED,
    NO_END: "set reward.require_thinking = false if the model does not think; if it should, let its chat template open <think> "
    "(data.chat_template_options = { enable_thinking = true })",
    UNFINISHED: "allow longer responses (max_response_tokens), or set data.chat_template_options = { enable_thinking = false } where the "
    "chat template knows it",
}
