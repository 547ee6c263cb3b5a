"""Log-softmax of a chunk of logits and its gradient in plain torch: what the chunked implementations share.

Legend: C rows of the chunk, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polaris_kernels.rows import Rows

_CHUNK_BYTES = 2**27
_MOST_ROWS = 256


def rows_per_chunk(vocabulary: int) -> int:
    """Rows C whose float32 logits take about 128 MiB: at least 16, at most 256, a function of V alone."""
    return max(16, min(_MOST_ROWS, _CHUNK_BYTES // (4 * vocabulary) // 16 * 16))


def chosen_logprob(logits: Tensor, targets: Tensor, temperature: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-prob of `targets` [C], entropy [C] (or None), and [2, C] maximum and log of the sum. Consumes `logits` [C, V].

    Logits are float32 or float64; targets lie in [0, V). The maximum is taken off before the division by the temperature [C],
    so that a common offset of the logits costs no precision.
    """
    maximum = logits.amax(1, keepdim=True)
    # Rows of only minus infinity would give inf - inf.
    maximum.masked_fill_(maximum == -torch.inf, 0.0)
    exponentials = logits.sub_(maximum).div_(_column(temperature)).exp()
    log_total = exponentials.sum(1, keepdim=True).log_()
    logprob = (logits.gather(1, targets.unsqueeze(1)) - log_total).squeeze(1)
    entropy = None
    if with_entropy:
        # An exponential is 0 long before its logarithm reaches -1000, where it would otherwise meet minus infinity.
        moment = exponentials.mul_(logits.clamp_(min=-1000)).sum(1, keepdim=True)
        entropy = (log_total - moment / log_total.exp()).squeeze(1)
    return logprob, entropy, torch.cat([maximum, log_total], dim=1).T


def add_columns(state: Tensor, logits: Tensor, targets: Tensor, temperature: Tensor) -> None:
    """Take further columns [C, W] into the online softmax of C rows. Consumes `logits`.

    `state` [4, C], in place: maximum of the logits so far; sum of e = exp((logit - maximum) / temperature); sum of e log(e); logit
    of the target. It begins as minus infinity, 0, 0, NaN. `targets` count from the first of these columns, or lie outside of them.
    """
    maximum, total, moment, chosen = state
    here = (targets >= 0) & (targets < logits.shape[1])
    picked = logits.gather(1, _column(targets.where(here, 0))).squeeze(1)
    chosen.copy_(picked.where(here, chosen))
    shift = _refer(state, torch.maximum(maximum, logits.amax(1)), temperature)
    lower = logits.sub_(_column(shift)).div_(_column(temperature))
    exponentials = lower.exp()
    total.add_(exponentials.sum(1))
    # An exponential is 0 long before its logarithm reaches -1000, where it would otherwise meet minus infinity.
    moment.add_(exponentials.mul_(lower.clamp_(min=-1000)).sum(1))


def merge_columns(state: Tensor, further: Tensor, temperature: Tensor) -> None:
    """Take the `further` state [4, C] of other columns, which it consumes, into that of the same rows, in place (see `add_columns`)."""
    higher = torch.maximum(state[0], further[0])
    for part in (state, further):
        _refer(part, higher, temperature)
    state[1:3].add_(further[1:3])
    torch.fmax(state[3], further[3], out=state[3])  # the one that is not NaN


def _refer(state: Tensor, higher: Tensor, temperature: Tensor) -> Tensor:
    """Refer the sums of a state to a maximum that is no lower, in place; return what exponents are taken from, [C]."""
    maximum, total, moment, _ = state
    # Rows of only minus infinity would give inf - inf; their sums stay at zero instead.
    shift = higher.where(higher > -torch.inf, 0.0)
    drop = ((maximum - shift) / temperature).where(maximum > -torch.inf, 0.0)
    decay = drop.exp()
    moment.add_(drop * total).mul_(decay)
    total.mul_(decay)
    maximum.copy_(higher)
    return shift


def logit_gradient(logits: Tensor, row: Rows) -> Tensor:
    """Gradient [C, V] of the logits before the temperature. Consumes `logits` [C, V], the same float32 or float64 values.

    The columns may be some of the vocabulary's; targets count from the first of them, or lie outside.

    dL/dz_j = (g ([j = y] - p_j) - h p_j (log p_j + entropy)) / temperature, with g and h the gradients of log-prob and entropy.
    """
    logprobs = logits.sub_(_column(row.maximum)).div_(_column(row.temperature)).sub_(_column(row.log_total))
    level = _column(-row.logprob_gradient)
    if row.entropy_gradient is not None:
        level = logprobs.clamp(min=-1000).add_(_column(row.entropy)).mul_(_column(-row.entropy_gradient)).add_(level)
    gradient = logprobs.exp_().mul_(level)
    here = (row.targets >= 0) & (row.targets < logits.shape[1])
    chosen = row.logprob_gradient.where(here, 0.0)
    return gradient.scatter_add_(1, _column(row.targets.where(here, 0)), _column(chosen)).div_(_column(row.temperature))


def _column(values: Tensor) -> Tensor:
    return values.unsqueeze(1)
