"""Policy losses by name; a new one is a file here and a line below."""

from __future__ import annotations

from polaris.algorithm.losses.base import LossInput, PolicyLoss, TokenLoss
from polaris.algorithm.losses.cispo import CISPO
from polaris.algorithm.losses.dapo import DAPO
from polaris.algorithm.losses.dr_grpo import DR_GRPO
from polaris.algorithm.losses.grpo import GRPO
from polaris.algorithm.losses.gspo import GSPO

LOSSES: dict[str, PolicyLoss] = {loss.name: loss for loss in (DAPO, GRPO, DR_GRPO, GSPO, CISPO)}

__all__ = ["LOSSES", "LossInput", "PolicyLoss", "TokenLoss"]
