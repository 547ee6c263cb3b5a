"""Buffers that no checkpoint holds, such as the frequencies of a rotary embedding: made anew from the configuration."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def make_buffers(model: PreTrainedModel) -> None:
    """Give a model on the meta device its buffers with their true values, on the CPU; what its own code does not fill stays."""
    for module in model.modules():
        own = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta and buffer.is_floating_point()]
        if not own:
            continue
        for name in own:
            module._buffers[name] = _blank(module._buffers[name])
        model._init_weights(module)
        for name in own:
            buffer = module._buffers[name]
            assert buffer is not None
            if bool(buffer.isnan().any()):
                module._buffers[name] = buffer.to("meta")


def _blank(buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    return torch.full_like(buffer, torch.nan, device="cpu")
