"""What a policy loss is, and its settings.

Legend: R response tokens of a pack, S sequences of the pack. A pack holds whole sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from polaris_kernels.token_batch import TokenBatch

Kind = Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo"]
TokenCorrection = Literal["off", "tis", "mask"]
SequenceCorrection = Literal["sequence_tis", "sequence_mask", "geometric_mask"]
CorrectionKind = Literal[TokenCorrection, SequenceCorrection]

_BOUNDS = {"sequence_mask": (0.0, 3.0), "geometric_mask": (0.99, 1.01)}
"""Of the corrections whose ratio is not near 1 to within a factor of 2: the caps of TRL and of SkyRL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """`loss` [R] to be minimised, the importance `ratio` [R] in it, and [R] bool where each bound on that ratio acted."""

    loss: Tensor
    ratio: Tensor
    clip_low: Tensor
    clip_high: Tensor
    clip_dual: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A loss, built in or a user's own: what each token adds, and how tokens are averaged.

    >>> PolicyLoss(name="reinforce", token_loss=lambda batch, settings: -batch.advantage * batch.logprob).aggregate
    'token'
    """

    name: str
    token_loss: Callable[[TokenBatch, PolicyLossSettings], TokenLoss | Tensor]
    """(tokens, settings) -> [R], to be minimised, with `batch.logprob` differentiable; a `TokenLoss` adds metrics."""
    aggregate: Literal["token", "sequence", "constant"] = "token"
    """What the token losses of an optimizer step are divided by: its response tokens; its sequences, after each token's loss was divided
    by the length of its sequence; its sequences times the longest response allowed."""
    of_sequences: bool = False
    """It needs all log-probs of a sequence before the gradient of any of them is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLossSettings:
    """`clip_low` and `clip_high` bound the ratio from 1; `dual_clip` 0 is off; see `importance_correction` for the correction.

    `kl` is the coefficient of the KL term against the batch's `reference_logprob`; 0 is off.
    """

    kind: Kind | PolicyLoss = "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 3.0
    correction: CorrectionKind = "off"
    correction_low: float | None = None
    correction_high: float | None = None
    kl: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, PolicyLoss) and self.kind not in get_args(Kind):
            raise ValueError(f"kind = {self.kind!r} is none of {', '.join(get_args(Kind))}; for a loss of your own pass a PolicyLoss")
        if self.correction not in get_args(CorrectionKind):
            raise ValueError(f"correction = {self.correction!r} is none of {', '.join(get_args(CorrectionKind))}")
        low, high = self.correction_bounds
        if not (self.clip_low >= 0 and self.clip_high >= 0 and 0 <= low < high):
            raise ValueError(f"bounds must not be negative, and correction_low must lie below correction_high: {self}")
        if self.dual_clip and not self.dual_clip > 1:
            raise ValueError(f"dual_clip = {self.dual_clip} must be above 1, or 0 to turn it off")
        if not self.kl >= 0:
            raise ValueError(f"kl = {self.kl} must not be negative; 0 turns it off")

    @property
    def correction_bounds(self) -> tuple[float, float]:
        """`correction_low` and `correction_high`, or the correction's own: 0.5 and 2 for most."""
        low, high = _BOUNDS.get(self.correction, (0.5, 2.0))
        return low if self.correction_low is None else self.correction_low, high if self.correction_high is None else self.correction_high
