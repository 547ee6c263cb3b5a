"""Hidden states to log-probabilities and entropies without the [T, V] logits; it stands on the files beside this folder, and
`linear_policy_loss` stands on it."""

from polaris_kernels.linear_logprob.function import linear_logprob
from polaris_kernels.linear_logprob.reference import linear_logprob_reference

__all__ = ["linear_logprob", "linear_logprob_reference"]
