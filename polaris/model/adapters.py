"""LoRA (Hu et al. 2021) by peft: beside each linear layer W [out, in] of the decoder, scale * B @ A with A [rank, in] and B [out, rank].

W is frozen in the compute dtype; A and B are float32, and all that is trained. A model gets its adapters on the meta device, before it is
sharded. FSDP2 asks for one dtype of the parameters that are trained in a unit; frozen ones may have another (since pytorch #154103, 2.8).
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from polaris.config.lora import LoraConfig
from polaris.distributed.fsdp import full
from polaris.errors import Refused
from polaris.model.architecture import decoder_layers

_NAME = "default"
_PREFIX = "base_model.model."
"""What peft writes before the names of a model's modules."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter of one linear layer of the model, and its parameters, which may be sharded."""

    layer: Any

    @property
    def a(self) -> nn.Parameter:
        """A [rank, in]."""
        return self.layer.lora_A[_NAME].weight

    @property
    def b(self) -> nn.Parameter:
        """B [out, rank]."""
        return self.layer.lora_B[_NAME].weight

    @property
    def base(self) -> nn.Parameter:
        """W [out, in]."""
        return self.layer.base_layer.weight

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.layer.scaling[_NAME]

    def merged(self, weight: Tensor) -> Tensor:
        """W + scale * B @ A, computed in float32 and rounded to the dtype of `weight`, the full W; a collective."""
        return (weight.float() + self.scale * (full(self.b.detach()) @ full(self.a.detach())).to(weight.device)).to(weight.dtype)


def check_peft() -> None:
    """Raise `Refused` unless peft is installed."""
    if importlib.util.find_spec("peft") is None:
        raise Refused("model.lora needs peft, which is not installed; `pip install 'polaris-rl[lora]'`, or set model.lora.rank to 0")


def check_targets(model: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """Names of the modules that get adapters: the linear layers of the decoder's layers whose last name is among `lora.targets`.

    Raises:
        Refused: a target is no such layer, or there are none.
    """
    layers = set(decoder_layers(model))
    inside = tuple(f"{name}." for name, module in model.named_modules() if module in layers)
    linear = [name for name, module in model.named_modules() if name.startswith(inside) and isinstance(module, nn.Linear)]
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    if not linear:
        raise Refused(
            f"model.lora: the layers of {type(model).__name__} have no torch.nn.Linear to put adapters beside; train all weights with "
            "model.lora.rank = 0, or another model"
        )
    lora.check_targets(known)
    return [name for name in linear if not lora.targets or name.rpartition(".")[2] in lora.targets]


def add_adapters(model: PreTrainedModel, lora: LoraConfig, dtype: torch.dtype) -> None:
    """Give a model on the meta device its adapters, and freeze all else in `dtype`."""
    check_peft()
    from peft import inject_adapter_in_model

    with torch.device("meta"):
        inject_adapter_in_model(_peft_config(lora, check_targets(model, lora)), model, _NAME)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _peft_config(lora: LoraConfig, targets: list[str]) -> Any:
    from peft import LoraConfig as PeftConfig

    alpha: Any = lora.alpha  # peft takes any number
    return PeftConfig(r=lora.rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")


def adapted_layers(model: nn.Module) -> dict[str, Adapter]:
    """The adapters by the names that their layers have in the model without them; none if the model has none."""
    return {name: Adapter(module) for name, module in model.named_modules() if hasattr(module, "lora_A")}


def named_adapters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names as in a peft folder, without its prefix, and full tensors of the adapters, float32; a collective, one tensor at a time."""
    for name, adapter in adapted_layers(model).items():
        yield f"{name}.lora_A.weight", full(adapter.a.detach())
        yield f"{name}.lora_B.weight", full(adapter.b.detach())


@torch.no_grad()
def start_adapters(model: nn.Module, seed: int) -> None:
    """Give adapters their first values, as peft does: A uniform by Kaiming's rule, B zero, so that the model begins as it was.

    Values depend on seed and name alone, not on ranks.
    """
    for name, adapter in adapted_layers(model).items():
        bound = 1 / math.sqrt(adapter.a.shape[1])  # torch.nn.init.kaiming_uniform_(a=sqrt(5))
        fill(adapter.a, torch.empty(adapter.a.shape).uniform_(-bound, bound, generator=_generator(seed, name)))
        adapter.b.zero_()


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model as it was before training, such as for the reference of a KL term."""
    layers = [adapter.layer for adapter in adapted_layers(model).values()]
    try:
        for layer in layers:
            layer._disable_adapters = True  # peft's own way, `enable_adapters`, changes requires_grad too
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@contextmanager
@torch.no_grad()
def shaken_adapters(model: nn.Module, seed: int, strength: float) -> Iterator[None]:
    """For a while, B of all adapters are random numbers with which they add about `strength` times what W gives."""
    adapters = adapted_layers(model)
    kept = {name: local(adapter.b).clone() for name, adapter in adapters.items()}
    try:
        for name, adapter in adapters.items():
            rank, inputs = adapter.a.shape
            size = float(full(adapter.base.detach()).float().square().mean().sqrt())
            # A x is about |x| / sqrt(3) in each of `rank` places, and W x about size * sqrt(inputs) * |x|.
            spread = strength * size * math.sqrt(3 * inputs / rank) / adapter.scale
            fill(adapter.b, spread * torch.randn(adapter.b.shape, generator=_generator(seed, f"shaken {name}")))
        yield
    finally:
        for name, adapter in adapters.items():
            local(adapter.b).copy_(kept[name])


def local(parameter: Tensor) -> Tensor:
    """This rank's shard, or the tensor itself where it is not sharded."""
    data = parameter.detach()
    return data.to_local() if isinstance(data, DTensor) else data


def fill(parameter: Tensor, values: Tensor) -> None:
    """Write the full tensor `values`, which every rank has, into a parameter that may be sharded."""
    data = parameter.detach()
    if isinstance(data, DTensor):
        spread = distribute_tensor(values.to(data.device), data.device_mesh, data.placements, src_data_rank=None)
        data.to_local().copy_(spread.to_local())
    else:
        data.copy_(values)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def adapter_shapes(model: PreTrainedModel, lora: LoraConfig) -> dict[str, torch.Size]:
    """Names and shapes of what `Policy.named_adapters` gives for this model (meta device), which then has adapters."""
    add_adapters(model, lora, torch.float32)
    return {name: tensor.shape for name, tensor in named_adapters(model)}


def write_adapter(folder: Path, adapters: Iterable[tuple[str, Tensor]], lora: LoraConfig, base: str) -> None:
    """Write `adapters` (`Policy.named_adapters`) as a folder that peft and vLLM load beside the model `base`."""
    tensors = {f"{_PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in adapters}
    targets = sorted({name.split(".")[-3] for name in tensors})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Mapping[str, Any] = _peft_config(lora, targets).to_dict() | {"base_model_name_or_path": base, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
