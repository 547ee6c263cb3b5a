"""Training samples whose rollouts have nothing of interest but their tokens and log-probs."""

from __future__ import annotations

import numpy as np

from polaris.learn.packing import TrainingSample
from polaris.types import Rollout


def training_sample(prompt_tokens, tokens, logprobs, advantage, temperature=1.0, mask=None):
    rollout = Rollout(
        prompt_id="",
        sample=0,
        tokens=np.asarray(tokens, np.int32),
        logprobs=np.asarray(logprobs, np.float32),
        versions=np.zeros(len(tokens), np.int32),
        finish_reason="stop",
        temperature=temperature,
        seed=0,
        mask=mask,
    )
    return TrainingSample(prompt_tokens=tuple(prompt_tokens), rollout=rollout, advantage=advantage)
