"""Checks from configuration and headers of the weight files that a checkpoint folder can be trained."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from polaris.config.lora import LoraConfig
from polaris.config.model import RopeConfig
from polaris.errors import Refused, in_one_line
from polaris.model.adapters import check_peft, check_targets
from polaris.model.architecture import check_architecture, check_config
from polaris.model.folder import CANNOT_BUILD, transformers_config
from polaris.model.load import build_model, stored_shapes
from polaris.model.names import checkpoint_names, names_in
from polaris.model.rope import OWN


def check_checkpoint(folder: Path, rope: RopeConfig = OWN, longest: int = 0, sharing: int = 1, lora: LoraConfig | None = None) -> None:
    """Compare the weights that the architecture needs with those in the folder; no weight is read.

    Args:
        longest: tokens of the longest sequence (prompt and response).
        sharing: ranks that share the tokens of a pack.

    Raises:
        ValueError: an unknown or unsupported architecture, attention heads that ranks cannot share, a damaged weight file, weights that are
            missing or of another shape, or adapters that it cannot have.
    """
    check_config(transformers_config(folder), folder)
    try:
        model = build_model(folder, rope)
    except Refused:
        raise
    except CANNOT_BUILD as error:
        raise Refused(f"{folder}: transformers cannot build this model ({in_one_line(error)})") from None
    check_architecture(model, folder, longest)
    check_sharing(model.config.num_attention_heads, sharing, folder)
    _check_weights(model, folder)
    if lora is not None and lora.rank:
        check_peft()
        check_targets(model, lora)


def check_sharing(heads: int, sharing: int, model: object) -> None:
    """Raise `Refused` unless the ranks that share packs can share the model's attention heads."""
    if heads % sharing:
        fitting = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        raise Refused(
            f"distributed.sequence_parallel = {sharing} does not divide the {heads} attention heads of {model}; set one of {fitting}"
        )


def check_weights(folder: Path) -> None:
    """As `check_checkpoint`, for a model of any architecture that is only sampled from; weights that transformers fuses are left out.

    Raises:
        ValueError: transformers does not know it, a weight file is damaged, or weights are missing or of another shape.
    """
    config = transformers_config(folder)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except CANNOT_BUILD as error:
        raise Refused(f"{folder}: transformers cannot build this model ({in_one_line(error)})") from None
    model.tie_weights()
    _check_weights(model, folder)


def _check_weights(model: PreTrainedModel, folder: Path) -> None:
    stored, usual = stored_shapes(folder), checkpoint_names(model)
    needed = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name in usual}
    names = names_in(model, stored)
    missing = [usual[name] for name in needed if name not in names]
    if missing:
        others = sorted(set(stored) - set(names.values()))
        held = f"; it holds {len(others)} unknown ones, such as {others[0]}" if others else ""
        raise Refused(
            f"{folder} lacks {len(missing)} of {len(needed)} weights, such as {missing[0]}{held}; download or export it again, and check "
            "that config.json belongs to the weights"
        )
    for name, shape in needed.items():
        if stored[names[name]] != shape:
            raise Refused(
                f"{folder}: {names[name]} has shape {stored[names[name]]}, but config.json asks for {shape}; do the two belong together?"
            )
