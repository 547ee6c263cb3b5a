"""Weights of a checkpoint as a Hugging Face folder has them: files of at most 5 GB, one after the other, so that those of one file are in
memory, in float32 and as they are written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub.serialization import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from transformers import PreTrainedModel

from polaris.model.adapters import adapted_layers
from polaris.model.load import stored_shapes
from polaris.model.names import base_parameters, checkpoint_names, names_in

LARGEST = 5 * 10**9
"""Bytes of a file, unless one tensor is larger."""
_MODEL = "model{suffix}.safetensors"


def write_shards(folder: Path, model: PreTrainedModel, base: Path, checkpoint: Path, dtype: torch.dtype) -> None:
    """Write the trained weights of a model on the meta device, whose adapters have their values (`load_adapters`), in `dtype`.

    Adapters are merged into the weights of the folder `base`, which then are frozen; else all weights are those of `checkpoint`.
    """
    names, parameters = checkpoint_names(model), base_parameters(model)
    own = {stored: name for name, stored in names.items()}
    marks = {stored: parameters[name] for name, stored in names.items()}
    split = split_state_dict_into_shards_factory(
        marks, get_storage_size=lambda mark: mark.numel() * dtype.itemsize, filename_pattern=_MODEL, max_shard_size=LARGEST
    )
    folder.mkdir(parents=True)
    merged = {f"{name}.weight": adapter for name, adapter in adapted_layers(model).items()}
    for file, stored in split.filename_to_tensors.items():
        shapes = {own[name]: parameters[own[name]].shape for name in stored}
        weights = _of_base(model, base, shapes, dtype) if merged else _of_checkpoint(checkpoint, shapes)
        weights |= {name: adapter.merged(weights[name]) for name, adapter in merged.items() if name in weights}
        save_file({names[name]: weight.to(dtype) for name, weight in weights.items()}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_adapters(model: PreTrainedModel, checkpoint: Path) -> None:
    """Give a model on the meta device the adapters of a checkpoint; all else stays without values."""
    for adapter in adapted_layers(model).values():
        adapter.layer.lora_A.to_empty(device="cpu")
        adapter.layer.lora_B.to_empty(device="cpu")
    weights = {f"model.{name}": one.detach() for name, one in model.named_parameters() if one.requires_grad}
    with _alone():
        dcp.load({"model": weights}, checkpoint_id=checkpoint, no_dist=True)


def _of_checkpoint(checkpoint: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    weights = {f"model.{name}": torch.empty(shape) for name, shape in shapes.items()}
    with _alone():
        dcp.load({"model": weights}, checkpoint_id=checkpoint, no_dist=True)
    return {name.removeprefix("model."): weight for name, weight in weights.items()}


def _of_base(model: PreTrainedModel, base: Path, shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> dict[str, Tensor]:
    """As the trainer held them: in `dtype`."""
    names = names_in(model, stored_shapes(base))
    weights = {names[name]: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
    with _alone():
        dcp.load(weights, storage_reader=HuggingFaceStorageReader(str(base)), no_dist=True)
    return {name: weights[names[name]] for name in shapes}


@contextmanager
def _alone() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # no_dist disables it
        yield
