"""Tokens with the log-probs of two policies, and their objective, for the tests of this folder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from polaris.learn.objective import pack_statistics, policy_loss_settings
from polaris_kernels import TokenBatch, policy_loss_of_batch


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

    def as_batch(self, behaviour, **scored) -> TokenBatch:
        return TokenBatch(
            behaviour_logprob=behaviour,
            advantage=self.advantage,
            proximal_logprob=self.proximal_logprob,
            sequence_lengths=self.sequence_lengths,
            **scored,
        )


def objective(tokens, behaviour, entropy, config, total, **given):
    """As `policy_objective` of hidden states that have those log-probs and entropies."""
    batch, settings = tokens.as_batch(behaviour, **given), policy_loss_settings(config)
    loss, totals = policy_loss_of_batch(tokens.logprob, batch, settings, total)
    return loss, pack_statistics(totals | {"entropy": entropy.double().sum()}, tokens.logprob, batch, settings)
