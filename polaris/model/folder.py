"""Checks that a folder holds a complete model in safetensors, and names the remedy for common other contents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from polaris.errors import Refused, in_one_line

_SAVE = "`AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)`"


CANNOT_BUILD = (ValueError, TypeError, KeyError, OSError, AttributeError, ImportError, StrictDataclassError)
"""Errors that transformers raises for a configuration that it cannot build."""


def transformers_config(folder: str | Path, **overrides: Any) -> PreTrainedConfig:
    """The folder's config.json as transformers reads it, with overrides; raises `Refused` if it cannot."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **overrides)
    except CANNOT_BUILD as error:
        raise Refused(f"{folder}/config.json: transformers cannot build this model ({in_one_line(error)})") from None
    return config


def check_folder(folder: Path) -> None:
    """Raise `Refused` if the folder holds an adapter, quantised or unsafe files, or not all weights."""
    if folder.is_file():
        kind = "a GGUF file, whose weights are quantised for inference" if folder.suffix == ".gguf" else "a file"
        raise Refused(f"{folder} is {kind}; give the folder of a Hugging Face checkpoint (config.json and *.safetensors)")
    if (folder / "adapter_config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path") or "its base model"
        raise Refused(
            f"{folder} holds an adapter of {base} (adapter_config.json), not a whole model; merge it first: "
            "`AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(folder)`"
        )
    shards = _listed_shards(folder)
    lost = sorted(shard for shard in shards if not (folder / shard).is_file())
    if not list(folder.glob("*.safetensors")) and not shards:
        _refuse_other_weights(folder)
    if not (folder / "config.json").is_file():
        raise Refused(f"{folder} has no config.json; give a Hugging Face checkpoint folder")
    if lost:
        raise Refused(
            f"{folder} lacks {len(lost)} of {len(shards)} files that its index lists, such as {lost[0]}; download or copy it again"
        )
    _check_code(folder)


def _refuse_other_weights(folder: Path) -> None:
    if list(folder.glob("*.gguf")):
        raise Refused(f"{folder} holds GGUF files, whose weights are quantised for inference; give the checkpoint that they were made from")
    if list(folder.glob("*.bin")) or list(folder.glob("*.pth")) or list(folder.glob("*.pt")):
        raise Refused(f"{folder} holds its weights as pickle files (*.bin), but Polaris reads safetensors; convert it: {_SAVE}")
    if not (folder / "config.json").is_file():
        raise Refused(f"{folder} has no config.json and no *.safetensors; give a Hugging Face checkpoint folder")
    raise Refused(
        f"{folder} has a config.json but no weights (*.safetensors); download it again, or, if the hub has only other formats, "
        f"convert them: {_SAVE}"
    )


def _check_code(folder: Path) -> None:
    """Raise `Refused` for a model unknown to transformers: code in the folder is never run."""
    config = _read(folder / "config.json")
    kind = config.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if config.get("auto_map"):
        raise Refused(
            f"{folder} is a {kind or 'model'} with code of its own (auto_map in config.json), which Polaris does not run; use a "
            "version that transformers knows (often with `-hf` in its name)"
        )
    raise Refused(
        f"{folder}/config.json: transformers {transformers.__version__} cannot build this model (model_type {kind!r} is unknown to it)"
    )


def _listed_shards(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    return set(_read(index).get("weight_map", {}).values()) if index.is_file() else set()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise Refused(f"{path} is not valid JSON ({error}); download or export the model again") from None
    if not isinstance(values, dict):
        raise Refused(f"{path} holds no JSON object; download or export the model again")
    return values
