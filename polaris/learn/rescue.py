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

from polaris.learn.success_buffer import SuccessBuffer
from polaris.rollout.types import request_seed
from polaris.types import Group, ScoredRollout


def rescue(
    groups: Sequence[Group], all_wrong: np.ndarray, successes: SuccessBuffer, seed: int, step: int
) -> tuple[list[Group], list[ScoredRollout]]:
    """Replace one failure of each `all_wrong` [P] group by a stored success of its prompt; return the groups, and the successes put in.

    A group whose prompt has no stored success stays. Which failure and which success is a function of (seed, step, prompt). A response
    whose grading was lost is not a failure. The success earns what its own verdict says, whatever the failures earned.
    """
    after, rescued = list(groups), []
    for p in np.flatnonzero(all_wrong).tolist():
        prompt_id, rollouts = groups[p].prompt.id, groups[p].rollouts
        stored = successes.of(prompt_id)
        if not stored:
            continue
        failures = [s for s, scored in enumerate(rollouts) if not scored.verdict.lost]
        place, choice = (request_seed(seed, "rescue", step, prompt_id, use) for use in range(2))
        s = failures[place % len(failures)]
        success = stored[choice % len(stored)]
        rescued.append(replace(success, rollout=replace(success.rollout, sample=rollouts[s].rollout.sample)))
        after[p] = replace(groups[p], rollouts=(*rollouts[:s], rescued[-1], *rollouts[s + 1 :]))
    return after, rescued
