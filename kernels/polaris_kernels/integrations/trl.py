"""TRL: `GRPOTrainer` and its siblings score tokens with `linear_logprob`.

TRL's trainers call `trl.trainer.utils._ChunkedLogProbFunction` in the forward that `add_fused_lm_head` gives a model; that name
is what `patch` replaces, so nothing else of TRL changes. It multiplies whole tiles of the vocabulary into a buffer in the dtype
of the model, where the logits are rounded; `linear_logprob` keeps them in float32.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from polaris_kernels.integrations.swap import require_version, swap, swap_back
from polaris_kernels.linear_logprob import linear_logprob

KNOWN_VERSIONS = ("1.16.0",)
_MODULE, _NAME = "trl.trainer.utils", "_ChunkedLogProbFunction"


def patch() -> None:
    """Make TRL's trainers use `linear_logprob`; call it before or after they are built, once per process.

    TRL's own function still serves calls that ask for more than log-probs and entropies, whose head is sharded by DeepSpeed
    ZeRO-3 (its weight is gone before the backward), or whose logits are scaled by a number that is not positive.

    Raises:
        ImportError: TRL is missing, or of a version that was not tested.
    """
    require_version("trl", KNOWN_VERSIONS)
    swap(import_module(_MODULE), _NAME, _LogProb)


def unpatch() -> None:
    """Give TRL its own function back; does nothing where `patch` was not called."""
    swap_back(import_module(_MODULE), _NAME)


class _LogProb:
    """Stands for the autograd function `original`."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def apply(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        final_logit_softcapping: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = ("log_probs",),
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """[N] log-probs, entropies where `outputs` asks for them, and None for what only TRL's function computes."""
        if not set(outputs) <= {"log_probs", "entropy"} or hasattr(weight, "ds_id") or logit_scale <= 0:
            return self._original.apply(
                hidden, weight, bias, targets, temperature, chunk_size, final_logit_softcapping, logit_scale, outputs
            )
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        # cap(s z) / t of TRL = s cap'(z) / t, where cap' has 1/s of the cap.
        logprob, entropy = linear_logprob(
            hidden.to(dtype),
            weight.to(dtype),
            targets,
            temperature=temperature / logit_scale,
            bias=None if bias is None else bias.to(dtype),
            softcap=None if final_logit_softcapping is None else final_logit_softcapping / logit_scale,
            return_entropy="entropy" in outputs,
        )
        return logprob, entropy, None, None, None
