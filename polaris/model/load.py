"""A Hugging Face checkpoint folder -> a sharded Policy; every rank reads only its own shards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from polaris.config.recipe import RopeConfig
from polaris.config.schema import ModelConfig
from polaris.errors import Refused
from polaris.model.attention import NAME
from polaris.model.rope import OWN, resolve_rope
from polaris.model.thinking_tokens import keep_thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the checks need to know before any weight is read."""

    folder: Path
    max_positions: int
    vocab_size: int


def locate_model(config: ModelConfig) -> ModelFacts:
    """Local folder of a checkpoint (downloaded from the hub where `model.path` is no folder) and its limits.

    Raises:
        ValueError: no such folder or model, or no config.json or safetensors in it.
    """
    folder = Path(config.path)
    if not folder.is_dir():
        folder = _download(config)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise Refused(f"model.path = {config.path} has no config.json or no *.safetensors; give a Hugging Face checkpoint folder")
    try:
        facts = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise Refused(f"{folder}/config.json is not valid JSON ({error}); download or export the model again") from None
    if not all(isinstance(facts, dict) and isinstance(facts.get(name), int) for name in ("max_position_embeddings", "vocab_size")):
        raise Refused(f"{folder}/config.json names no max_position_embeddings or vocab_size; is it a causal language model?")
    return ModelFacts(folder=folder, max_positions=facts["max_position_embeddings"], vocab_size=facts["vocab_size"])


def _download(config: ModelConfig) -> Path:
    looks_local = config.path.startswith((".", "/", "~")) or config.path.count("/") != 1
    missing = f"model.path = {config.path} is neither a folder nor a model on the Hugging Face hub that can be reached from here"
    if looks_local:
        raise Refused(f"model.path = {config.path} does not exist; give a checkpoint folder or a Hugging Face model name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(config.path, revision=config.revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise Refused(f"{missing} ({type(error).__name__})") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer; no remote code. Raises `ValueError` if transformers finds none that it knows."""
    from transformers import AutoTokenizer

    try:
        return keep_thinking(AutoTokenizer.from_pretrained(folder))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Refused(f"{folder}: transformers cannot load its tokenizer ({str(error).splitlines()[0]}); download it again") from error


def build_model(folder: Path, rope: RopeConfig = OWN) -> PreTrainedModel:
    """The model's modules without weights (meta device), with packed attention."""
    config = AutoConfig.from_pretrained(folder, **resolve_rope(folder, rope).overrides)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=NAME)
    model.tie_weights()
    return model


def load_weights(model: PreTrainedModel, folder: Path, device: torch.device) -> None:
    """Materialise a (sharded) meta model on a device and read its weights as float32, each rank its own shards."""
    model.to_empty(device=device)
    model.tie_weights()
    _restore_buffers(model)
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))


def _restore_buffers(model: PreTrainedModel) -> None:
    """Recompute the buffers that a checkpoint does not hold (rope frequencies), which `to_empty` left undefined."""
    restored = set()
    for name, module in model.named_modules():
        if "RotaryEmbedding" in type(module).__name__:
            with torch.no_grad():
                model._init_weights(module)
            restored |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)}
    unknown = {name for name, _ in model.named_buffers()} - restored
    if unknown:
        raise Refused(f"{type(model).__name__} has buffers that are in no checkpoint and that Polaris cannot recompute: {sorted(unknown)}")


def count_parameters(model: nn.Module) -> int:
    """Parameters of the whole model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
