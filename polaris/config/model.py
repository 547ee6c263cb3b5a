"""Which model is trained, and its rotary embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polaris.config.bounds import at_least, positive
from polaris.config.lora import LoraConfig
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which checkpoint is trained, and how its numbers are computed."""

    path: str = "Qwen/Qwen3-4B"
    """Checkpoint folder, Hugging Face model name, or `embedded:model`."""
    revision: str | None = None
    """Commit hash or tag on the Hugging Face hub."""
    chat_template: str | None = None
    """Jinja template in the place of the tokenizer's, as text or as a file beside the configuration's; exports have it too."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Compute dtype of forward, backward and rollout; parameters that are trained and optimizer state are always
    float32."""
    fused_modules: bool = True
    """On CUDA, run Liger's RMSNorm, SwiGLU and rope in place of the model's own."""
    compile: bool = False
    """Compile the decoder layers by torch.compile, in the place of fused modules. The first packs then take minutes."""
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Where the trainer keeps what it needs, from the fastest to the smallest; no setting changes a gradient."""

    activations: Literal["keep", "recompute_mlp", "recompute", "offload"] = "recompute"
    """What the forward pass leaves for the backward: everything, or all but what each layer's MLP computes inside, or the inputs of the
    layers alone, which then compute again; or these inputs in host memory."""
    optimizer: Literal["device", "host"] = "device"
    """Where float32 weights, gradients and moments are, 16 bytes a parameter over all ranks. With "host" the optimizer steps there, and
    weights come to the GPU in the compute dtype, one layer at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """YaRN (Peng et al. 2023) of trainer, engine and export."""

    factor: float = 1.0
    """Context extension; 1 leaves the checkpoint's own rotary embedding."""
    original_positions: int | None = None
    """Positions that YaRN extends; by default the checkpoint's."""
    attention_factor: float | None = None
    """Factor on cosines and sines; by default YaRN's 0.1 ln(factor) + 1. 1 turns it off."""
    max_positions: int | None = None
    """Longest sequence in tokens; by default the checkpoint's, or original_positions x factor where that is more. More is allowed: the
    model then extrapolates."""

    def __post_init__(self) -> None:
        at_least("rope", 1, factor=self.factor)
        positive("rope", original_positions=self.original_positions, attention_factor=self.attention_factor)
        positive("rope", max_positions=self.max_positions)
        if self.factor <= 1 and (self.original_positions is not None or self.attention_factor is not None):
            raise Refused("rope.original_positions and rope.attention_factor need a rope.factor above 1; set it")
