"""verl: the fused forward of its actors (`use_fused_kernels=True`) scores tokens with `linear_logprob`.

With fused kernels, verl's models call one of two functions at the end of their forward: `FusedLinearForPPO` for the backends "torch"
and "liger", `linear_cross_entropy` for "triton". They are imported where they are called, so replacing the two names is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from polaris_kernels.integrations.swap import require_version, swap, swap_back
from polaris_kernels.linear_logprob import linear_logprob

KNOWN_VERSIONS = ("0.8.0", "0.9.0", "0.9.1")
_MODULE, _TRITON = "verl.utils.experimental.torch_functional", "verl.utils.kernel.linear_cross_entropy"


def patch() -> None:
    """Make verl's fused forwards use `linear_logprob`, whichever backend is configured; call it in every worker's process.

    verl's own function still serves heads that are split over the vocabulary (Megatron's tensor parallelism).

    Raises:
        ImportError: verl is missing, or of a version that was not tested.
    """
    require_version("verl", KNOWN_VERSIONS)
    swap(import_module(_MODULE), "FusedLinearForPPO", lambda _: _FusedLinearForPPO)
    swap(import_module(_TRITON), "linear_cross_entropy", _linear_cross_entropy)


def unpatch() -> None:
    """Give verl its own functions back; does nothing where `patch` was not called."""
    swap_back(import_module(_MODULE), "FusedLinearForPPO")
    swap_back(import_module(_TRITON), "linear_cross_entropy")


class _FusedLinearForPPO:
    """Stands for verl's module of that name, which has no parameters; its settings choose among verl's own backends."""

    def __init__(self, chunk_size: int = 512, impl_backend: str = "torch") -> None:
        pass

    def forward(self, hidden_states: Tensor, vocab_weights: Tensor, input_ids: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies, float32 in the shape of `input_ids`, of which `hidden_states` has one more dimension, H."""
        return _score(hidden_states, vocab_weights, input_ids, temperature)

    __call__ = forward


def _linear_cross_entropy(original: Callable[..., Any]) -> Callable[..., Any]:
    def linear_cross_entropy(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        temperature: float = 1.0,
        reduction: str = "none",
        dist_process_group: Any = None,
    ) -> tuple[Tensor, Tensor]:
        if reduction != "none" or (dist_process_group is not None and dist_process_group.size() > 1):
            return original(hidden, weight, labels, temperature, reduction, dist_process_group)
        # verl's function returns flat results, whatever the shape of the labels.
        logprob, entropy = _score(hidden, weight, labels, temperature)
        return logprob.flatten(), entropy.flatten()

    return linear_cross_entropy


def _score(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    logprob, entropy = linear_logprob(hidden.flatten(0, -2), weight.to(hidden.dtype), targets.flatten(), temperature=temperature)
    assert entropy is not None
    return logprob.view(targets.shape), entropy.view(targets.shape)
