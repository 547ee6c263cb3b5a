"""Tokens with the log-probs of two policies, and their objective, for the tests of this folder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from polaris.learn.objective import policy_objective
from polaris_kernels import TokenBatch


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """R tokens of S sequences: log-probs [R] of the trained and the proximal policy, advantages [R], and lengths [S]."""

    logprob: Tensor
    proximal_logprob: Tensor
    advantage: Tensor
    sequence_lengths: Tensor

    @property
    def sequence(self) -> Tensor:
        """[R], the index of each token's sequence."""
        return torch.repeat_interleave(torch.arange(len(self.sequence_lengths)), self.sequence_lengths)

    def as_batch(self, behaviour) -> TokenBatch:
        return TokenBatch(
            behaviour_logprob=behaviour,
            advantage=self.advantage,
            proximal_logprob=self.proximal_logprob,
            sequence_lengths=self.sequence_lengths,
        )


def objective(tokens, behaviour, entropy, config, total):
    terms = (tokens.advantage, entropy, tokens.sequence_lengths, config, total, tokens.proximal_logprob)
    return policy_objective(tokens.logprob, behaviour, *terms)
