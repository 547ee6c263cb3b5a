"""What the plan needs to know of a configuration, in one small record; the only file of the plan that reads sections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from polaris.config.lora import LoraConfig
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.doors import is_own
from polaris.plan.cards import Card
from polaris.plan.shape import ModelShape

Engines = Literal["colocated", "separate", "transformers", "none"]
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
MEAN_SHARE = 0.4
"""Mean length of responses beside the limit, where nothing is known: POLARIS's 4B has 15K to 20K of 40K, its 7B 8K to 9K of 16K (their
issues 16, 18 and plots)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of training: steps, and most tokens of a response."""

    steps: int
    response: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A model, machines and settings. Tokens and GPUs are counts, `itemsize` bytes of the compute dtype."""

    shape: ModelShape
    card: Card
    gpus: int
    """Of one node."""
    nodes: int = 1
    itemsize: int = 2
    fused: bool = True
    """Liger's modules run, or compiled layers, which are taken to keep as little: that has not been measured."""
    activations: Literal["keep", "recompute_mlp", "recompute", "offload"] = "recompute"
    optimizer: Literal["device", "8bit", "host"] = "device"
    """Where AdamW and its float32 weights are; "8bit": on the device, with optimizer.name = "adamw8bit"."""
    sequence_parallel: int = 1
    replicas: int = 1
    reshard: bool = True
    adapters: int = 0
    """Parameters of LoRA's adapters; 0 where all parameters are trained."""
    served_apart: bool = False
    """Whether engines have the adapters beside the model's weights, which they then keep in host memory while they sleep."""
    tokens_per_pack: int = 32_768
    prompt: int = 1024
    """Most tokens of a prompt."""
    prompts: int = 128
    samples: int = 8
    updates: int = 1
    passes: int = 0
    """Forward passes over a step's tokens beside the updates: proximal log-probs, the reference's."""
    reference: bool = False
    engine: Engines = "colocated"
    """vLLM beside the trainers or on GPUs of its own; transformers' model beside the trainers; or nothing samples."""
    engine_ranks: int = 0
    tensor_parallel: int = 1
    fraction: float = 0.8
    quantized: bool = False
    """Whether engines have a byte for each weight of the layers, and `itemsize` for the others."""
    max_concurrent: int = 256
    stages: tuple[Stage, ...] = (Stage(steps=100, response=8192),)
    mean_share: float = MEAN_SHARE
    kept: int = 2
    """Checkpoints that stay on disk."""
    staged: bool = False
    """Whether checkpoints are written from a copy in host memory, where there is room for it."""
    host_gib: float = 0.0
    """GiB of a node's host memory; 0 where it is not known."""
    one_pack: bool = False
    """Whether an update has only one pack, so that no gradients of an earlier one wait."""

    @property
    def ranks(self) -> int:
        """GPUs that train."""
        return self.gpus * self.nodes - self.engine_ranks

    @property
    def weight(self) -> int:
        """Bytes that engines have for a weight of the layers."""
        return 1 if self.quantized else self.itemsize

    @property
    def shards(self) -> int:
        """Ranks that weights and optimizer are divided over."""
        return max(1, self.ranks // self.replicas)

    @property
    def prompt_mean(self) -> int:
        """Tokens of a usual prompt: competition problems have 100 to 200, far below the limit."""
        return min(self.prompt, 200)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.prompt + max(stage.response for stage in self.stages)

    @property
    def pack(self) -> int:
        """Tokens of the longest pack on one rank; a longer sequence has a pack of its own, which neighbours share."""
        return max(self.tokens_per_pack, ceil(self.longest / self.sequence_parallel))

    @property
    def engines(self) -> int:
        return (self.engine_ranks if self.engine == "separate" else self.ranks) // self.tensor_parallel

    @property
    def trained(self) -> int:
        """Parameters with gradients and moments."""
        return self.adapters or self.shape.parameters


def setup_of(config: RunConfig | SftConfig, shape: ModelShape, card: Card, gpus: int, nodes: int = 1) -> Setup:
    """The record of a configuration on `nodes` nodes of `gpus` GPUs each."""
    common = Setup(
        shape=shape,
        card=card,
        gpus=gpus,
        nodes=nodes,
        itemsize=ITEMSIZE[config.model.dtype],
        fused=config.model.compile or (config.model.fused_modules and shape.fusible),
        activations=config.memory.activations,
        optimizer="8bit" if config.optimizer.name == "adamw8bit" else config.memory.optimizer,
        sequence_parallel=config.distributed.sequence_parallel,
        replicas=config.distributed.replicas,
        reshard=config.distributed.reshard,
        adapters=adapters_of(shape, config.model.lora),
        served_apart=config.model.lora.served_apart,
        tokens_per_pack=config.trainer.tokens_per_pack,
        kept=config.checkpoint.keep,
        staged=config.checkpoint.asynchronous,
    )
    return _tuning(common, config) if isinstance(config, SftConfig) else _training(common, config)


def _training(common: Setup, config: RunConfig) -> Setup:
    rollout, trainer = config.rollout, config.trainer
    reference = config.algorithm.kl != "off"
    return replace(
        common,
        prompt=config.data.max_prompt_tokens,
        prompts=trainer.prompts_per_step,
        samples=rollout.samples_per_prompt,
        updates=trainer.updates_per_step,
        passes=int(trainer.updates_per_step > 1) + int(reference),
        reference=reference,
        engine=_engine(config),
        engine_ranks=rollout.engine_ranks,
        tensor_parallel=rollout.tensor_parallel,
        fraction=rollout.gpu_memory_fraction,
        quantized=rollout.quantization != "none",
        max_concurrent=rollout.max_concurrent,
        stages=tuple(Stage(steps=stage.steps, response=config.sampling(stage)[1]) for stage in config.stages),
    )


def _engine(config: RunConfig) -> Engines:
    """What samples on the job's GPUs; neither servers outside it nor an engine of the user's own are known to the plan."""
    rollout = config.rollout
    if is_own(rollout.engine) or (rollout.servers and not rollout.engine_ranks):
        return "none"
    return "transformers" if rollout.engine == "transformers" else rollout.placement


def _tuning(common: Setup, config: SftConfig) -> Setup:
    stages = (Stage(steps=config.trainer.steps or 0, response=config.data.max_tokens),)
    return replace(common, prompt=0, prompts=config.trainer.examples_per_step, samples=1, engine="none", stages=stages)


def adapters_of(shape: ModelShape, lora: LoraConfig) -> int:
    """Parameters of LoRA's adapters on a model.

    Raises:
        Refused: it has no layers of these names.
    """
    lora.check_targets([name for name, _ in shape.linear])
    return lora.rank * shape.layers * sum(size for name, size in shape.linear if not lora.targets or name in lora.targets)
