"""What a policy loss knows of each token: the one value that travels from a trainer's pack to the kernels."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this before exp, as in verl: nothing overflows, and beyond it the gradient is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """T tokens to train on, side by side, of S whole sequences. Log-probs are in nats; a gradient reaches `logprob` alone.

    Two responses of two tokens and one token, sampled at temperature 0.8, the first of which was right:

    >>> batch = TokenBatch(
    ...     targets=torch.tensor([785, 4226, 15]),
    ...     temperature=0.8,
    ...     behaviour_logprob=torch.tensor([-0.3, -1.2, -0.9]),
    ...     advantage=torch.tensor([1.0, 1.0, -1.0]),
    ...     sequence_lengths=torch.tensor([2, 1]),
    ... )
    >>> batch[batch.advantage > 0].targets
    tensor([ 785, 4226])
    """

    behaviour_logprob: Tensor
    """[T] float32, of the engine that sampled the tokens, which may differ from any trainer's."""
    advantage: Tensor
    """[T] float32."""
    targets: Tensor | None = None
    """[T] integers, the tokens themselves, -100 outside of the mask; only a loss that scores them itself needs them."""
    temperature: float | Tensor = 1.0
    """Of the softmax that scores them: a number or [T]."""
    mask: Tensor | None = None
    """[T] bool, the tokens to train on; None for all."""
    proximal_logprob: Tensor | None = None
    """[T] float32, of the trainer before the step's first update; None in that update, where every ratio is 1."""
    reference_logprob: Tensor | None = None
    """[T] float32, of a frozen reference policy, for a KL term."""
    weight: Tensor | None = None
    """[T] float32, a factor of each token's loss in place of the loss's own share of its sequence; None for that share."""
    sampling_mask: Tensor | None = None
    """[T, ceil(V / 32)] int32, the tokens that a truncating sampler kept (`pack_sampling_mask`); only what scores tokens needs it."""
    logprob: Tensor | None = None
    """[T], of the policy that is trained; the operation puts it in before it asks a loss for its terms."""
    sequence_lengths: Tensor | None = None
    """[S] integers that sum to T; "grpo" and "gspo" need them."""

    def __getitem__(self, rows: Tensor) -> TokenBatch:
        """The tokens at `rows`, [T] bool or rising indices; what is left of each sequence is its length."""
        lengths = self.sequence_lengths
        if lengths is not None:
            lengths = torch.bincount(self.sequences()[1][rows], minlength=len(lengths))
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sequence_lengths"}
        taken = {name: value[rows] for name, value in values.items() if isinstance(value, Tensor) and value.ndim}
        return replace(self, **taken, sequence_lengths=lengths)

    def proximal(self) -> Tensor:
        """Log-probs [T] of the proximal policy; in the step's first update it is the trained one, as a constant."""
        if self.proximal_logprob is not None:
            return self.proximal_logprob
        assert self.logprob is not None, "this needs logprob"
        return self.logprob.detach()

    def ratio(self) -> Tensor:
        """Importance ratio [T] of the trained to the proximal policy, token by token; its gradient is the ratio."""
        assert self.logprob is not None, "this needs logprob"
        return (self.logprob - self.proximal()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()

    def sequences(self) -> tuple[Tensor, Tensor]:
        """The lengths [S], and for each token the index [T] of its sequence."""
        lengths = self.sequence_lengths
        assert lengths is not None, "this needs sequence_lengths, which a loss that is not of_sequences does not get"
        return lengths, torch.repeat_interleave(lengths, output_size=len(self.advantage))
