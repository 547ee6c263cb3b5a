"""The built-in policy losses by name (a new one is a file here and a line below), and what the Triton kernel knows of them."""

from __future__ import annotations

from polaris_kernels.policy_loss.cispo import CISPO
from polaris_kernels.policy_loss.correction import of_sequences
from polaris_kernels.policy_loss.dapo import DAPO
from polaris_kernels.policy_loss.dr_grpo import DR_GRPO
from polaris_kernels.policy_loss.grpo import GRPO
from polaris_kernels.policy_loss.gspo import GSPO
from polaris_kernels.policy_loss.settings import PolicyLoss, PolicyLossSettings
from polaris_kernels.token_batch import TokenBatch

LOSSES: dict[str, PolicyLoss] = {loss.name: loss for loss in (DAPO, GRPO, DR_GRPO, GSPO, CISPO)}


def loss_of(settings: PolicyLossSettings) -> PolicyLoss:
    """The loss that the settings name or hold."""
    return settings.kind if isinstance(settings.kind, PolicyLoss) else LOSSES[settings.kind]


def kernel_knows(settings: PolicyLossSettings, batch: TokenBatch) -> bool:
    """Whether the Triton kernel computes this loss; if not, the definition in torch does, on every device."""
    built_in = not isinstance(settings.kind, PolicyLoss) and not of_sequences(settings)
    return built_in and not settings.kl and batch.reference_logprob is None and batch.weight is None
