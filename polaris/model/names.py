"""Names of weights: those of a model's parameters, and those that its checkpoints have, which transformers may rename as it loads."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion


def checkpoint_names(model: PreTrainedModel) -> dict[str, str]:
    """Name of every parameter -> its name in a checkpoint (GPT-NeoX: `lm_head.weight` -> `embed_out.weight`).

    Parameters that a checkpoint holds in another form, such as one matrix per expert, are left out.
    """
    marks = {name: torch.empty(parameter.shape, device="meta") for name, parameter in model.named_parameters()}
    stored = {id(tensor): name for name, tensor in revert_weight_conversion(model, marks).items()}
    return {name: stored[id(mark)] for name, mark in marks.items() if id(mark) in stored}


def names_in(model: PreTrainedModel, stored: Collection[str]) -> dict[str, str]:
    """Name of every parameter -> its name among `stored`, those of one checkpoint; what is not there is left out.

    It may be there under its own name, under that of `checkpoint_names`, or without the prefix of the model around the decoder (GPT-2's).
    """
    prefix = f"{model.base_model_prefix}."
    found: dict[str, str] = {}
    for own, usual in ({name: name for name, _ in model.named_parameters()} | checkpoint_names(model)).items():
        names = [name for name in (usual, own, usual.removeprefix(prefix)) if name in stored]
        found |= {own: names[0]} if names else {}
    return found
