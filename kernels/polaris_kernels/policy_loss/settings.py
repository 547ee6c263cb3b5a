"""The settings of a policy loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo"]
CorrectionKind = Literal["off", "tis", "mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLossSettings:
    """`clip_low` and `clip_high` bound the ratio from 1; `dual_clip` 0 is off; see `importance_correction` for the rest."""

    kind: Kind = "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 3.0
    correction: CorrectionKind = "off"
    correction_low: float = 0.5
    correction_high: float = 2.0

    def __post_init__(self) -> None:
        for name, kinds in (("kind", Kind), ("correction", CorrectionKind)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} = {getattr(self, name)!r} is none of {', '.join(get_args(kinds))}")
        if not (self.clip_low >= 0 and self.clip_high >= 0 and 0 <= self.correction_low < self.correction_high):
            raise ValueError(f"bounds must not be negative, and correction_low must lie below correction_high: {self}")
        if self.dual_clip and not self.dual_clip > 1:
            raise ValueError(f"dual_clip = {self.dual_clip} must be above 1, or 0 to turn it off")
