"""Dropout is off while a policy trains: engines sample without it, so a policy with dropout would not be the one that sampled.

`packed_attention` applies none either, whatever a model asks of it.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig


def drop_nothing(config: PreTrainedConfig) -> None:
    """Set every probability of dropout in a configuration to 0, under whatever name (`attention_dropout`, `resid_pdrop`, `layerdrop`)."""
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float | int) and not isinstance(value, bool):
            setattr(config, name, 0.0)
        elif isinstance(value, PreTrainedConfig):
            drop_nothing(value)


def silence_dropout(model: nn.Module) -> None:
    """The same for modules of dropout whose probability is in no configuration."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
