"""Policy losses by name; a new one is a file here and a line below."""

from __future__ import annotations

from polaris_kernels.policy_loss.base import PolicyLoss, TokenLoss
from polaris_kernels.policy_loss.cispo import CISPO
from polaris_kernels.policy_loss.dapo import DAPO
from polaris_kernels.policy_loss.dr_grpo import DR_GRPO
from polaris_kernels.policy_loss.grpo import GRPO
from polaris_kernels.policy_loss.gspo import GSPO

LOSSES: dict[str, PolicyLoss] = {loss.name: loss for loss in (DAPO, GRPO, DR_GRPO, GSPO, CISPO)}

__all__ = ["LOSSES", "PolicyLoss", "TokenLoss"]
