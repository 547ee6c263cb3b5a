"""Names of weights: those of a model's parameters and those in its checkpoints, which transformers may rename on loading."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's own parameters by their names without adapters: peft puts a layer with adapters in the place of each linear one."""
    return {name.replace(".base_layer.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" not in name}


def checkpoint_names(model: PreTrainedModel) -> dict[str, str]:
    """Name of every parameter -> its name in a checkpoint (GPT-NeoX: `lm_head.weight` -> `embed_out.weight`).

    Parameters that a checkpoint holds in another form, such as one matrix per expert, are left out.
    """
    marks = {name: torch.empty(parameter.shape, device="meta") for name, parameter in base_parameters(model).items()}
    stored = {id(tensor): name for name, tensor in revert_weight_conversion(model, marks).items()}
    return {name: stored[id(mark)] for name, mark in marks.items() if id(mark) in stored}


def names_in(model: PreTrainedModel, stored: Collection[str]) -> dict[str, str]:
    """Name of every parameter -> its name among `stored`, the names in one checkpoint; missing ones are left out.

    It may be stored under its own name, its name in `checkpoint_names`, or without the prefix of the decoder (GPT-2).
    """
    prefix = f"{model.base_model_prefix}."
    found: dict[str, str] = {}
    for own, usual in ({name: name for name in base_parameters(model)} | checkpoint_names(model)).items():
        names = [name for name in (usual, own, usual.removeprefix(prefix)) if name in stored]
        found |= {own: names[0]} if names else {}
    return found
