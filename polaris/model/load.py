"""A Hugging Face checkpoint folder -> a sharded Policy; every rank reads only its own shards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.nn.modules.dropout import _DropoutNd
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.names import nearest
from polaris.errors import Refused, in_one_line
from polaris.model.attention import NAME
from polaris.model.folder import check_folder, transformers_config
from polaris.model.names import base_parameters, names_in
from polaris.model.rope import OWN, resolve_rope
from polaris.reward.extract import END_OF_THINKING, START_OF_THINKING

_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
"""Files of a model to download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts about a model for checks before any weight is read."""

    folder: Path
    vocab_size: int


def locate_model(config: ModelConfig) -> ModelFacts:
    """Local folder of a checkpoint (downloaded from the hub if `model.path` is not a folder), and its vocabulary size.

    Raises:
        ValueError: no such folder or model, or not a complete model in safetensors that transformers knows.
    """
    folder = Path(config.path)
    if not folder.exists():
        folder = _download(config)
    check_folder(folder)
    text = transformers_config(folder).get_text_config(decoder=True)
    if not isinstance(getattr(text, "vocab_size", None), int):
        raise Refused(f"{folder}/config.json names no vocab_size; is it a causal language model?")
    return ModelFacts(folder=folder, vocab_size=text.vocab_size)


def _download(config: ModelConfig) -> Path:
    looks_local = config.path.startswith((".", "/", "~")) or config.path.count("/") != 1
    missing = f"model.path = {config.path} is neither a folder nor a model on the Hugging Face hub that can be reached"
    if looks_local:
        instead = _near(config.path) or "give a checkpoint folder or a Hugging Face model name"
        raise Refused(f"model.path = {config.path} does not exist; {instead}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        near = _near(config.path)
        raise Refused(f"{missing} ({type(error).__name__}){f'; {near}' if near else ''}") from None


def _near(path: str) -> str:
    """A suggestion: the folder of a similar name in the same place, if there is one."""
    place = Path(path).parent
    close = nearest(Path(path).name, [child.name for child in place.iterdir() if child.is_dir()]) if place.is_dir() else None
    return f"did you mean {str(place / close)!r}?" if close else ""


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, without remote code, with its own chat template or the given one. Raises `ValueError` if transformers
    cannot load it."""
    from transformers import AutoTokenizer

    own = {} if chat_template is None else {"chat_template": chat_template}
    try:
        return keep_thinking(AutoTokenizer.from_pretrained(folder, **own))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Refused(f"{folder}: transformers cannot load its tokenizer ({in_one_line(error)}); download it again") from error


def read_config(folder: Path, rope: RopeConfig = OWN) -> PreTrainedConfig:
    """The checkpoint's configuration, with the rope of `rope`."""
    return transformers_config(folder, **resolve_rope(folder, rope).overrides)


def build_model(folder: Path, rope: RopeConfig = OWN) -> PreTrainedModel:
    """The model's modules without weights (meta device), with packed attention and without dropout."""
    config = read_config(folder, rope)
    drop_nothing(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=NAME)
    silence_dropout(model)
    make_buffers(model)
    model.tie_weights()
    return model


def load_weights(model: PreTrainedModel, folder: Path, device: torch.device, *, on_host: bool = False) -> None:
    """Materialise a (sharded) meta model on a device and read its weights in its dtype; each rank reads its own shards.
    `on_host` leaves the weights in host memory. Adapters have no values yet."""
    buffers = dict(model.named_buffers())
    model.to_empty(device="cpu" if on_host else device)
    model.tie_weights()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    buffers_to(model, device)
    names = names_in(model, stored_shapes(folder))
    state = {names[name]: parameter.detach() for name, parameter in base_parameters(model).items()}
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))


def buffers_to(model: nn.Module, device: torch.device) -> None:
    """Move buffers to the device that computes, wherever the weights are."""
    for module in model.modules():
        for name, own in module.named_buffers(recurse=False):
            module._buffers[name] = own.to(device)


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the folder's safetensors, from their headers.

    Raises:
        Refused: a file is incomplete.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(torch.Size(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise Refused(f"{path} is not a complete safetensors file ({error}); download or export it again") from None
    return shapes


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of the whole model; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def describe_parameters(model: nn.Module) -> str:
    """How many there are, and how many of them are trained, in millions."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    of_them = "" if trained == count_parameters(model) else f", {trained / 1e6:.3g}M of them trained adapters"
    return f"{count_parameters(model) / 1e6:.1f}M parameters{of_them}"


def drop_nothing(config: PreTrainedConfig) -> None:
    """Set all dropout probabilities of a configuration to 0, under any name (`attention_dropout`, `resid_pdrop`, `layerdrop`).

    Engines sample without dropout, so with it the trained policy would not be the one that sampled.
    """
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float | int) and not isinstance(value, bool):
            setattr(config, name, 0.0)
        elif isinstance(value, PreTrainedConfig):
            drop_nothing(value)


def silence_dropout(model: nn.Module) -> None:
    """The same for dropout modules whose probability is not in the configuration."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0


@torch.no_grad()
def make_buffers(model: PreTrainedModel) -> None:
    """Give a meta model its buffers with their true values, on the CPU; buffers that its own code does not fill stay on meta."""
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


def keep_thinking(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, changed to keep thinking marks when it decodes without special tokens.

    Models often add them as special tokens, but without them in the text no response would seem to end its thinking. The tokens of a
    text stay the same.
    """
    marks = {START_OF_THINKING, END_OF_THINKING}
    hidden = any(token.special and token.content in marks for token in tokenizer.added_tokens_decoder.values())
    if hidden and isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        for token in backend["added_tokens"]:
            token["special"] &= token["content"] not in marks
        # transformers cannot make a special token ordinary.
        vars(tokenizer)["_tokenizer"] = Tokenizer.from_str(json.dumps(backend))
    return tokenizer
