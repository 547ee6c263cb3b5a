"""The sharded policy of a run, of training and of fine-tuning alike, with the weights of its checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.distributed.fsdp import shard
from polaris.distributed.mesh import World
from polaris.distributed.seeds import seed_everything
from polaris.model.activations import save_activations
from polaris.model.adapters import add_adapters, start_adapters
from polaris.model.compiled import compile_layers
from polaris.model.flash import choose_flash
from polaris.model.fused import can_fuse, fuse_modules
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy
from polaris.model.rope import head_size, resolve_rope, rotary_table
from polaris.model.rope_check import check_rope
from polaris.plan.setup import Engines
from polaris.run.memory import check_memory


def load_policy(
    folder: Path, config: RunConfig | SftConfig, world: World, *, longest: int, engine: Engines = "none"
) -> tuple[Policy, bool]:
    """The policy, and whether its rotary table could be compared with the configuration.

    On a GPU sequences of up to `longest` tokens must fit, and the `engine` that is beside the trainer.

    Raises `Refused` if they do not.
    """
    if world.device.type == "cpu" and config.trainer.cpu_threads is not None:
        torch.set_num_threads(config.trainer.cpu_threads)
    seed_everything(config.seed, config.deterministic)
    dtype = getattr(torch, config.model.dtype)
    on_host = config.memory.optimizer == "host"
    model = build_model(folder, config.rope)
    check_memory(model, config, world, longest=longest, engine=engine)
    if config.model.lora.rank:
        add_adapters(model, config.model.lora, dtype)
    policy = shard(Policy(model), world.mesh, dtype, on_host=on_host, reshard=config.distributed.reshard)
    policy.attention = attention_of(policy, world.device, dtype)
    if config.model.compile:
        compile_layers(policy.model)
    fuse(policy, config, world)
    save_activations(policy.model, config.memory.activations, world.device)
    load_weights(policy.model, folder, world.device, on_host=on_host)
    start_adapters(policy.model, config.seed)
    angles = check_rope("trainer", resolve_rope(folder, config.rope), partial(rotary_table, policy.model, dtype=dtype))
    return policy, angles is not None


def attention_of(policy: Policy, device: torch.device, dtype: torch.dtype) -> str:
    """What computes the policy's attention from now on, in words for the console."""
    if device.type != "cuda" or dtype == torch.float32:
        return "torch's scaled_dot_product_attention"
    config = policy.model.config
    heads = config.num_attention_heads
    chosen, why = choose_flash(device, dtype, (heads, getattr(config, "num_key_value_heads", heads), head_size(config)))
    return f"{chosen} ({why})" if why else chosen


def fuse(policy: Policy, config: RunConfig | SftConfig, world: World) -> None:
    """Fused modules where the configuration asks for them and the device has them."""
    if config.model.fused_modules and not config.model.compile and world.device.type == "cuda" and can_fuse(policy.model):
        fuse_modules(policy.model)
