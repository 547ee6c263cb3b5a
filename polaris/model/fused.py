"""Liger's RMSNorm, SwiGLU and rope in place of the model's own: one call patches, the function it returns restores."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

# Families whose norm, gated MLP and rotary embedding match the formulas of Liger's "llama" kernels exactly.
FAMILIES = ("llama", "qwen2", "qwen3")


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether Liger is installed and covers this family."""
    return importlib.util.find_spec("liger_kernel") is not None and model.config.model_type in FAMILIES


def fuse_modules(model: PreTrainedModel) -> Callable[[], None]:
    """Run the model's norms, gated MLPs and rope through Liger's kernels from now on.

    Returns:
        A function that undoes it.
    """
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    patched = []
    for module in model.modules():
        forward = _norm_forward if _is_norm(module) else _mlp_forward if _is_gated_mlp(module) else None
        if forward is not None:
            module.forward = partial(forward, module)
            patched.append(module)
    modeling: Any = sys.modules[type(model).__module__]
    original_rope = modeling.apply_rotary_pos_emb
    modeling.apply_rotary_pos_emb = liger_rotary_pos_emb

    def restore() -> None:
        for module in patched:
            del module.forward
        modeling.apply_rotary_pos_emb = original_rope

    return restore


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _is_gated_mlp(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))


def _norm_forward(module: Any, hidden: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_rms_norm

    return liger_rms_norm(hidden, module.weight, module.variance_epsilon)


def _mlp_forward(module: Any, hidden: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_swiglu

    return module.down_proj(liger_swiglu(module.gate_proj(hidden), module.up_proj(hidden)))
