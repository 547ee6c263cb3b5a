"""The sizes of a model that memory and speed follow from, counted on its modules without weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from polaris.config.model import ModelConfig
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.model.architecture import decoder_layers
from polaris.model.fused import FAMILIES
from polaris.model.load import build_model
from polaris.model.names import base_parameters
from polaris.model.rope import head_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a dense decoder, in numbers (not bytes). `layer` and `outside` count parameters: of one decoder layer, and of what is in
    none (embedding, final norm and head, shared ones once)."""

    hidden: int
    inner: int
    layers: int
    query: int
    """Query heads x head dimension: the width of queries and of attention's output."""
    key: int
    """Key-value heads x head dimension."""
    heads: int
    vocabulary: int
    layer: int
    outside: int
    tied: bool
    query_norm: bool
    """Whether queries and keys are normalised (Qwen3)."""
    fusible: bool
    """Whether Liger's modules cover the family."""
    linear: tuple[tuple[str, int], ...]
    """The linear layers of a decoder layer: last name, and inputs + outputs."""

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.outside

    @property
    def head(self) -> int:
        """Numbers of the head's matrix."""
        return self.vocabulary * self.hidden

    @property
    def matrices(self) -> int:
        """Parameters that each token is multiplied with in the layers; norms and biases are below a thousandth."""
        return self.layers * self.layer


def config_folder(model: ModelConfig) -> Path:
    """The folder of `model.path`'s config.json; of a name on the Hugging Face hub nothing else is read.

    Raises:
        Refused: there is no such folder or model, or the hub cannot be reached.
    """
    path = Path(resolve(model.path))
    if path.exists() or model.path.startswith((".", "/", "~")) or model.path.count("/") != 1:
        if not (path / "config.json").is_file():
            raise Refused(f"model.path = {model.path} has no config.json; give a checkpoint folder or a Hugging Face model name")
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.path, "config.json", revision=model.revision)).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise Refused(
            f"model.path = {model.path}: its config.json cannot be had from the Hugging Face hub ({type(error).__name__}); copy that file "
            "into a folder and give the folder: --model.path=FOLDER"
        ) from None


def shape_of(folder: Path) -> ModelShape:
    """The shape of the model in a folder with a config.json. Raises `Refused` if transformers cannot build it."""
    return shape_of_model(build_model(folder))


def shape_of_model(model: PreTrainedModel) -> ModelShape:
    """The shape of a model whose weights may be on the meta device, and sharded; adapters that it has are left out."""
    config, layers = model.config, decoder_layers(model)
    layer, everything = (sum(one.numel() for one in base_parameters(part).values()) for part in (layers[0], model))
    size = head_size(config)
    return ModelShape(
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        layers=len(layers),
        query=config.num_attention_heads * size,
        key=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        layer=layer,
        outside=everything - len(layers) * layer,
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        query_norm=any(re.search(r"q_?norm|query_?norm", name) for name, _ in layers[0].named_modules()),
        fusible=config.model_type in FAMILIES,
        linear=tuple(
            (name.removesuffix(".base_layer").rpartition(".")[2], module.in_features + module.out_features)
            for name, module in layers[0].named_modules()
            if isinstance(module, nn.Linear) and ".lora_" not in name
        ),
    )
