"""`linear_logprob` by its kernels alone, forward and backward, for tests that choose the tiles."""

from __future__ import annotations

from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import tiled_backward, tiled_forward
from polaris_kernels.rows import Rows


def tiled(hidden, weight, targets, temperature, coefficients, tiles, **head):
    """Log-probs, entropies and gradients, in float64; `coefficients` are the gradients of the first two, the second may be None."""
    head = Head(weight=weight, **head)
    logprob, entropy, (maximum, log_total) = tiled_forward(hidden, head, targets, temperature, -100, tiles)
    values = Rows(
        targets=targets,
        temperature=temperature,
        maximum=maximum,
        log_total=log_total,
        logprob=logprob,
        entropy=entropy,
        logprob_gradient=coefficients[0],
        entropy_gradient=coefficients[1],
    )
    gradients = tiled_backward(hidden, head, values, True, tiles)
    return [r.double() for r in (logprob, entropy, *gradients) if r is not None]
