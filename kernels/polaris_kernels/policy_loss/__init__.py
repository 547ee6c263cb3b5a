"""The policy losses of the GRPO family, with importance correction and metrics, from per-token log-probs; it stands on the files beside
this folder, and `linear_policy_loss` stands on it."""

from polaris_kernels.policy_loss.function import policy_loss, policy_loss_of_batch
from polaris_kernels.policy_loss.reference import policy_loss_reference

__all__ = ["policy_loss", "policy_loss_of_batch", "policy_loss_reference"]
