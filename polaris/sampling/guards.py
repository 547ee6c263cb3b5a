"""Stop a run whose responses cannot be graded, or have no answer, while the evidence is at hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polaris.config.schema import RunConfig
from polaris.data import answer_format
from polaris.errors import RunFailed
from polaris.files import write_atomically
from polaris.reward import no_answer
from polaris.reward.extract import EMPTY_BOX, NO_BOX, NO_END, NO_FORM, UNFINISHED
from polaris.sampling.context import SamplingContext
from polaris.types import RAISED, Group, Prompt, ScoredRollout, Verdict

_KEY = "reward.function"
MOST_KILLED = 0.01
"""Share of a step's responses that may cost a grading process its life; one response always may."""
_KEPT = 16
"""Most responses without an answer that are written down as evidence."""


class GradingFailed(RunFailed):
    """Too many responses of a step killed their grading process, or the reward raised at them."""


def show_error(context: SamplingContext, verdicts: Iterable[tuple[str, Verdict]]) -> None:
    """Warn, once in a run, of a reward that raised: with its traceback, and the id of the prompt."""
    for prompt_id, verdict in verdicts:
        if verdict.reason == RAISED and not context.grader.has_raised:
            context.grader.has_raised = True
            context.console.warning(f"{_KEY} raised at a response to prompt {prompt_id}, which is not graded:\n{verdict.trace.rstrip()}")


def stop_if_grading_fails(groups: Sequence[Group], folder: Path, *, writes: bool) -> None:
    """Raise `GradingFailed` if more than 1 % of the step is lost: with the answers that killed their process in `killed_answers.jsonl` of
    `folder`, or the responses at which the reward raised in `failed_rewards.jsonl`.

    Every rank has all verdicts, so all ranks raise together; rank 0, which has the texts, `writes`.
    """
    lost = [(group.prompt, scored) for group in groups for scored in group.rollouts if scored.verdict.lost]
    responses = sum(len(group.rollouts) for group in groups)
    if len(lost) <= max(1, MOST_KILLED * responses):
        return
    raised = [(prompt, scored) for prompt, scored in lost if scored.verdict.reason == RAISED]
    path = folder / ("failed_rewards.jsonl" if raised else "killed_answers.jsonl")
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(_evidence(*one)) + "\n" for one in lost), encoding="utf-8")
    if raised:
        prompt, first = raised[0]
        raise GradingFailed(
            f"{_KEY} raised at {len(raised)} of {responses} responses, first at one to prompt {prompt.id}: "
            f"{first.verdict.trace.rstrip().splitlines()[-1]}. Mend it and resume with --change; {path} has all, with their tracebacks"
        )
    answer = lost[0][1].verdict.answer
    raise GradingFailed(
        f"{len(lost)} of {responses} responses killed their grading process{'' if answer is None else f', as {answer!r} did'} "
        f"({path} has all). If the answers are honest, raise reward.timeout_s and resume with --change; if not, the policy has found a "
        f"hole in the {'reward: mend it' if answer is None else 'grader: please report them'}"
    )


def _evidence(prompt: Prompt, scored: ScoredRollout) -> dict[str, Any]:
    verdict = scored.verdict
    found = {"prompt": prompt.id, "ground_truth": prompt.ground_truth, "answer": verdict.answer, "reason": verdict.reason}
    more = {"response": scored.text} if verdict.answer is None else {}
    return found | more | ({"traceback": verdict.trace} if verdict.trace else {})


class NoAnswers(RunFailed):
    """No response of the first ones has an answer: every reward is 0 for a formal reason."""


def answers_missing(scored: Iterable[ScoredRollout]) -> dict[str, int]:
    """How many responses have no answer, by the reason."""
    return no_answer.count(no_answer.reason(one.verdict, one.rollout.finish_reason == "length") for one in scored)


def stop_without_answers(context: SamplingContext, groups: Sequence[Group], where: str, limit: int) -> None:
    """Raise `NoAnswers` if none of the responses, of at most `limit` tokens, has an answer, and no other reward tells them apart; some of
    them are kept in `no_answers.jsonl`.

    Every rank has all verdicts, so all ranks raise together.
    """
    everything = [(group.prompt, scored) for group in groups for scored in group.rollouts]
    missing = answers_missing(scored for _, scored in everything)
    if sum(missing.values()) < len(everything) or len({scored.verdict.reward for _, scored in everything}) > 1:
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
    form = answer_format.graded(config.reward)
    remedies = {**_REMEDIES, no_answer.CUT_OFF: f"allow more than {limit} tokens (rollout.max_response_tokens, or the stage's)"}
    found = [remedies[reason] for reason in missing if reason in remedies]
    if form == answer_format.BOX and not asked[form]:
        found = [*(remedy for remedy in found if remedy != _PROMPTED), _ASK]
    return NoAnswers(
        f"{where}: none of the {sum(missing.values())} responses has an answer ({no_answer.in_words(missing)}), so every reward is 0; "
        f"nothing was trained. {_graded(form)}, and the prompts ask for: {answer_format.in_words(asked)}.{evidence} "
        f"To mend it: {'; '.join(dict.fromkeys(found))}. Then start again under another --name, or with --fresh"
    )


def _graded(form: str) -> str:
    return "Boxes are graded" if form == answer_format.BOX else f"{form} is graded (reward.answer)"


_ASK = f"set {answer_format.REMEDY}"
_PROMPTED = "write a worked example into the prompts, or begin with an instruction-tuned model"
_REMEDIES = {
    NO_BOX: _PROMPTED,
    NO_FORM: "say in the prompts how an answer is written (data.prompt_suffix), or set reward.answer to the form that the responses have",
    EMPTY_BOX: _PROMPTED,
    NO_END: "set reward.require_thinking = false if the model does not think; if it should, let its chat template open <think> "
    "(data.chat_template_options = { enable_thinking = true })",
    UNFINISHED: "allow longer responses (rollout.max_response_tokens, or the stage's), or set "
    "data.chat_template_options = { enable_thinking = false } where the chat template knows it",
}
