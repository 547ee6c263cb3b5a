"""`model.compile`: decoder layers by torch.compile, one set of graphs for all layers and for packs of any length."""

from __future__ import annotations

import torch
from transformers import AttentionInterface, PreTrainedModel

from polaris.model.architecture import decoder_layers
from polaris.model.attention import NAME, packed_attention


def compile_layers(model: PreTrainedModel) -> None:
    """Compile what each layer does before and after its attention, when it first runs.

    Attention stays as it is: it goes by the lengths of a pack's sequences, for which a compiler would compile each pack anew. What is
    compiled is the forward, not the module, so that FSDP's hooks and checkpointing are outside.
    """
    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    for layer in decoder_layers(model):
        vars(layer)["forward"] = torch.compile(layer.forward, dynamic=True)
