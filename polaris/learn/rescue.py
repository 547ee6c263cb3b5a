"""A stored success in the place of one failure, where every response to a prompt failed (POLARIS, section 4).

The success was sampled by older weights, and it is not trained on as if it were the present policy's. It brings the log-probs mu of
the engine that sampled it, at its own temperature T, and the trainer scores its tokens at that T. The loss then has the two factors of
decoupled PPO (Hilton et al. 2022) for it as for every other sample:

- correction: old / mu, where `old` is the trainer before the step's first update. For a fresh sample this is the numerical gap
  between trainer and engine; for a stored one it is also all that the updates in between have changed. It is cut ("tis") or masked
  ("mask") at its bounds.
- ratio: new / old, which is 1 in the first update. Clip bounds hold the policy near the one before this step, not near mu.

Their product is new / mu, the importance weight of a sample of mu. So a stored success needs no case of its own in the loss, but it
does need a correction: with "off" its weight would be 1 whatever became of the policy, and the configuration refuses that. Since both
log-probs are at T, the weight says what became of the weights, and nothing of the temperature that later stages sample at. The
`rescue/` metrics are those of the stored tokens alone, which rise with their age; `mismatch/` are those of fresh ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from polaris.learn.successes import Success, Successes
from polaris.rollout.seeds import request_seed
from polaris.sampling.collect import Graded
from polaris.types import Prompt, Verdict


def rescue(
    prompts: Sequence[Prompt], groups: Sequence[list[Graded]], all_wrong: np.ndarray, successes: Successes, seed: int, step: int
) -> tuple[list[list[Graded]], list[Graded]]:
    """The groups, with one failure of each `all_wrong` [P] group replaced where its prompt has a stored success; and what was put in.

    Which failure and which success is a function of (seed, step, prompt). The success takes the failure's place and key; responses
    whose grading was lost are not failures and stay.
    """
    after, rescued = list(groups), []
    for p in np.flatnonzero(all_wrong).tolist():
        stored = successes.of(prompts[p].id)
        if not stored:
            continue
        failures = [s for s, graded in enumerate(groups[p]) if not graded.verdict.lost]
        place, choice = (request_seed(seed, "rescue", step, prompts[p].id, use) for use in range(2))
        s = failures[place % len(failures)]
        rescued.append(_in_place_of(groups[p][s], stored[choice % len(stored)]))
        after[p] = [*groups[p][:s], rescued[-1], *groups[p][s + 1 :]]
    return after, rescued


def store_successes(successes: Successes, prompts: Sequence[Prompt], groups: Sequence[Sequence[Graded]]) -> None:
    """Store the correct responses of a finished step, for later epochs: no prompt is drawn twice in one."""
    if not successes.most:
        return
    for prompt, group in zip(prompts, groups, strict=True):
        correct = [graded for graded in group if graded.verdict.kind == "correct"]
        successes.add(prompt.id, [_success(graded) for graded in correct[-successes.most :]])


def _success(graded: Graded) -> Success:
    # Copies, because an engine's arrays may be views that keep a whole batch alive.
    rollout = graded.rollout
    return Success(
        tokens=rollout.tokens.copy(),
        logprobs=rollout.logprobs.copy(),
        finish_reason=rollout.finish_reason,
        version=rollout.version,
        temperature=rollout.temperature,
        seed=rollout.seed,
        text=graded.text,
        answer=graded.verdict.answer,
    )


def _in_place_of(failure: Graded, success: Success) -> Graded:
    rollout = replace(
        failure.rollout,
        tokens=success.tokens,
        logprobs=success.logprobs,
        finish_reason=success.finish_reason,
        version=success.version,
        temperature=success.temperature,
        seed=success.seed,
    )
    return Graded(rollout=rollout, text=success.text, verdict=Verdict("correct", answer=success.answer), stored=True)
