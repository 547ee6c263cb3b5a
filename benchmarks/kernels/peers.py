"""The contestants of each operation: ours, plain torch, and the peers' own functions under one signature.

A contestant is loaded when it is first asked for; one that is missing, or that has no implementation for the device, raises
`Unavailable` with the reason, which becomes a named skip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TEMPERATURE = 0.8
LogProb = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(hidden [T, H], weight [V, H], targets [T]) -> log-probs [T], entropies [T] or None; at TEMPERATURE."""


class Unavailable(Exception):
    """Why a contestant does not take part."""


def load(contestants: dict[str, Callable[[torch.device], Any]], name: str, device: torch.device) -> Any:
    """The contestant's function for the device, or `Unavailable`."""
    try:
        return contestants[name](device)
    except (ImportError, AttributeError) as missing:
        raise Unavailable(f"{name}: {missing}") from missing


def cuda_only(name: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise Unavailable(f"{name}: runs on CUDA only")


def _ours(device: torch.device) -> LogProb:
    from polaris_kernels import linear_logprob

    return lambda hidden, weight, targets: linear_logprob(hidden, weight, targets, temperature=TEMPERATURE)


def eager(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What a trainer without kernels does: logits in the model's dtype, softmax in float32."""
    logprobs = ((hidden @ weight.T).float() / TEMPERATURE).log_softmax(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def dapo_losses(logprob: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    """Token losses [T] of dapo in plain torch: ratio clipped to 0.8 and 1.28, dual clip 3."""
    ratio = (logprob - old).exp()
    clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
    return -torch.where(advantage < 0, torch.maximum(clipped, 3.0 * advantage), clipped)


def _trl(device: torch.device) -> LogProb:
    from trl.kernels import ChunkedLogProbFunction

    fields = ("log_probs", "entropy")
    return lambda hidden, weight, targets: ChunkedLogProbFunction.apply(
        hidden, weight, None, targets, TEMPERATURE, 32_768, None, 1.0, fields
    )[:2]


def _verl(device: torch.device) -> LogProb:
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    module = FusedLinearForPPO()
    return lambda hidden, weight, targets: module(hidden, weight, targets, TEMPERATURE)


def _verl_triton(device: torch.device) -> LogProb:
    cuda_only("verl-triton", device)
    from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

    return lambda hidden, weight, targets: linear_cross_entropy(hidden, weight, targets, TEMPERATURE, "none")


def _liger(device: torch.device) -> LogProb:
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction

    def function(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nll, entropy = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, targets, TEMPERATURE, -100, 1, True)
        return -nll, entropy

    return function


def _cce(device: torch.device) -> LogProb:
    from cut_cross_entropy import linear_cross_entropy

    implementation = "cce" if device.type == "cuda" else "torch_compile"
    # It has no temperature: the hidden states take it, rounded to their dtype.
    return lambda hidden, weight, targets: (
        -linear_cross_entropy(hidden / TEMPERATURE, weight, targets, reduction="none", impl=implementation),
        None,
    )


def _torch(device: torch.device) -> LogProb:
    function = torch.nn.functional.linear_cross_entropy
    # Its chunks take minutes for a backward on CPU (128 rows, torch 2.13); there it runs without.
    options = torch.nn.LinearCrossEntropyOptions() if device.type == "cuda" else None
    return lambda hidden, weight, targets: (
        -function(hidden / TEMPERATURE, weight, targets, reduction="none", options=options),
        None,
    )


LINEAR_LOGPROB: dict[str, Callable[[torch.device], LogProb]] = {
    "polaris": _ours,
    "eager": lambda device: eager,
    "trl": _trl,
    "verl": _verl,
    "verl-triton": _verl_triton,
    "liger": _liger,
    "cce": _cce,
    "torch": _torch,
}
