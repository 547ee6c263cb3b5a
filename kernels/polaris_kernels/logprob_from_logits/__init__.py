"""Log-probabilities and entropies of logits that exist already, in one read; it stands on the files beside this folder, and trainers that
have logits call it."""

from polaris_kernels.logprob_from_logits.function import logprob_from_logits
from polaris_kernels.logprob_from_logits.reference import logprob_from_logits_reference

__all__ = ["logprob_from_logits", "logprob_from_logits_reference"]
