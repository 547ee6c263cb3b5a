"""From verdicts to the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polaris.config.bounds import at_least, at_most
from polaris.config.names import shown
from polaris.config.own_code import DOOR
from polaris.doors import is_own
from polaris.errors import Refused

ADVANTAGES = ("group", "batch", "rloo")
LOSSES = ("dapo", "grpo", "dr_grpo", "gspo", "cispo")
_BOUNDS = {"sequence_mask": (0.0, 3.0), "geometric_mask": (0.99, 1.01)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmConfig:
    """From verdicts to the loss: advantages, clipping, importance correction, and which groups take part."""

    loss: str = field(default="dapo", metadata=DOOR)
    """dapo, grpo, dr_grpo, gspo, cispo, each defined in `polaris_kernels.policy_loss`, or your own, `module:name`. `dapo` averages over
    the tokens of the batch, `grpo` over each response first, `dr_grpo` over the longest length; `gspo` has one ratio per response;
    `cispo` clips the weight, not the gradient."""
    clip_low: float = 0.2
    """The ratio to the sampling policy is clipped below 1 - clip_low."""
    clip_high: float = 0.28
    """The ratio is clipped above 1 + clip_high; larger than clip_low, it leaves unlikely tokens room to grow (DAPO's clip-higher)."""
    dual_clip: float | Literal["off"] = 3.0
    """dapo: bound on the ratio where the advantage is negative (Ye et al. 2020), or "off"."""
    advantage: str = field(default="group", metadata=DOOR)
    """`group`: reward minus the mean of its group, over what advantage_scale says. `batch`: over the standard deviation of the batch
    (ScaleRL). `rloo`: reward minus the mean of the group's others, over nothing. Or a function of your own, `module:name`."""
    advantage_scale: Literal["std", "none"] = "std"
    """group: divide by the group's standard deviation, or not (Dr. GRPO)."""
    truncated: Literal["train", "mask", "penalise"] = "train"
    """A response cut off at the longest length is trained on as any other; or counts in the mean of its group, but its own tokens are
    not trained on (DAPO's overlong filtering); or earns truncation_penalty less."""
    truncation_penalty: float = 1.0
    """penalise: how much less."""
    aggregate: Literal["token", "sequence", "prompt", "constant"] | None = None
    """Mean over tokens, over sequences' means, over prompts' means over all tokens of their responses (ScaleRL), or over sequences
    times the longest length (Dr. GRPO); left out, the loss's own."""
    correction: Literal["off", "tis", "mask", "sequence_tis", "sequence_mask", "geometric_mask"] = "tis"
    """Engine-to-trainer importance correction: truncated weight, two-sided mask, or none; the same with the product over the response;
    geometric_mask leaves out whole responses whose geometric mean lies outside, and weighs nothing."""
    correction_high: float | None = None
    """tis: cap of the weight; mask: upper end of the kept interval. Left out: 2; sequence_mask 3; geometric_mask 1.01."""
    correction_low: float | None = None
    """mask: lower end of the kept interval. Left out: 0.5; sequence_mask 0; geometric_mask 0.99."""
    kl: Literal["off", "k1", "k3"] = "off"
    """Distance to a frozen reference, the model of model.path. `k1`: each response earns kl_coefficient times that of all of its tokens
    less. `k3`: each token's loss is kl_coefficient times its own more."""
    kl_coefficient: float = 0.001
    """Reward, or loss, per nat of distance to the reference (TRL's beta); 0 only measures it."""
    substitution: bool = False
    """Groups without variance give their places to copies of informative groups of the same batch."""
    min_informative: float = 0.0
    """Smallest share of informative groups in a batch (the recipe: a third); `scarce` says what happens below it."""
    scarce: Literal["train", "generate", "skip"] = "train"
    """Train on what is there, first draw further prompts of the epoch (at most `max_draws` batches in all), or skip the update."""
    max_draws: int = 3
    """Most batches that one step draws where scarce = "generate", the first one included."""
    rescue: int = 0
    """Newest correct rollouts of earlier epochs kept per prompt; one replaces a failure where all failed. 0 turns it off."""

    def __post_init__(self) -> None:
        at_least("algorithm", 0, clip_low=self.clip_low, clip_high=self.clip_high, kl_coefficient=self.kl_coefficient)
        at_least("algorithm", 0, min_informative=self.min_informative, rescue=self.rescue)
        at_least("algorithm", 0, truncation_penalty=self.truncation_penalty)
        if self.advantage not in ADVANTAGES and not is_own(self.advantage):
            known = ", ".join(map(repr, ADVANTAGES))
            raise Refused(f"algorithm.advantage = {shown(self.advantage)} is not one of {known}, nor a module:function of your own")
        at_most("algorithm", 1, min_informative=self.min_informative)
        at_least("algorithm", 1, max_draws=self.max_draws)
        if self.dual_clip != "off" and self.dual_clip <= 1:
            raise Refused(f'algorithm.dual_clip = {self.dual_clip} must be above 1, or "off"')
        if self.loss not in LOSSES and not is_own(self.loss):
            raise Refused(
                f"algorithm.loss = {shown(self.loss)} is not one of {', '.join(map(repr, LOSSES))}, nor a module:name of your own"
            )
        low, high = self.correction_bounds
        if not 0 <= low < high:
            raise Refused(f"algorithm.correction_low = {low} must be below algorithm.correction_high = {high}")
        if self.rescue > 0 and self.correction == "off":
            raise Refused(
                f"algorithm.rescue = {self.rescue} trains on responses of older weights, which need an importance correction; "
                'set algorithm.correction to "tis" or "mask"'
            )
        if self.scarce != "train" and self.min_informative <= 0:
            raise Refused(
                f'algorithm.scarce = "{self.scarce}" never happens with algorithm.min_informative = 0; set that share, such as 0.3333'
            )

    @property
    def correction_bounds(self) -> tuple[float, float]:
        """`correction_low` and `correction_high`, or the correction's own."""
        low, high = _BOUNDS.get(self.correction, (0.5, 2.0))
        return low if self.correction_low is None else self.correction_low, high if self.correction_high is None else self.correction_high
