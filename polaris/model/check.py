"""Can this checkpoint folder be trained? Answered from its configuration and the headers of its weight files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from polaris.config.recipe import RopeConfig
from polaris.errors import Refused
from polaris.model.load import build_model
from polaris.model.rope import OWN, resolve_rope


def check_checkpoint(folder: Path, rope: RopeConfig = OWN) -> None:
    """Compare what the model's architecture needs with what the folder holds; no weight is read.

    Raises:
        ValueError: an unknown or unsupported architecture, a damaged weight file, or weights that are missing or of another shape.
    """
    resolve_rope(folder, rope)
    try:
        model = build_model(folder, rope)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Refused(f"{folder}: transformers cannot build this model ({str(error).splitlines()[0]})") from None
    _check_attention(model, folder)
    stored = _stored_shapes(folder)
    needed = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    missing = [name for name in needed if name not in stored]
    if missing:
        raise Refused(f"{folder} lacks {len(missing)} of {len(needed)} weights, such as {missing[0]}; download or export it again")
    for name, shape in needed.items():
        if stored[name] != shape:
            raise Refused(f"{folder}: {name} has shape {stored[name]}, but config.json asks for {shape}; do the two belong together?")


def _check_attention(model: PreTrainedModel, folder: Path) -> None:
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise Refused(f"{folder} has layers of kind {', '.join(sorted(kinds))}; Polaris trains models with full attention in every layer")


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(torch.Size(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise Refused(f"{path} is not a whole safetensors file ({error}); download or export it again") from None
    return shapes
