"""Hidden states to a policy loss with its gradient, in three matrix products instead of four; it stands on `linear_logprob` and
`policy_loss`, and trainers call it."""

from polaris_kernels.linear_policy_loss.function import linear_policy_loss, linear_policy_loss_of_batch
from polaris_kernels.linear_policy_loss.reference import linear_policy_loss_reference

__all__ = ["linear_policy_loss", "linear_policy_loss_of_batch", "linear_policy_loss_reference"]
