"""Log-probabilities and entropies of logits that exist already, in one read."""

from polaris_kernels.logprob_from_logits.function import logprob_from_logits
from polaris_kernels.logprob_from_logits.reference import logprob_from_logits_reference

__all__ = ["logprob_from_logits", "logprob_from_logits_reference"]
