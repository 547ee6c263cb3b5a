"""One train step (forward, policy loss, backward, clipping, AdamW) of a model with random weights: tokens/s, MFU, peak memory.

Each step trains one response that fills the whole pack, the most expensive way to spend its tokens.
Reference: prime-rl, Qwen3-4B, 65,536 tokens, 8 H200 with FlashAttention-3: 3,693 tokens/s per GPU, 36.1 % MFU, 36.1 GiB
(benchmarks/results/BENCHMARKS.md of its repository, 2026-02-01).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PretrainedConfig, Qwen3Config

from benchmarks.kernels.contest import free, timed
from polaris.config.algorithm import AlgorithmConfig
from polaris.config.lora import LoraConfig
from polaris.config.model import MemoryConfig, ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import OptimizerConfig, TrainerConfig
from polaris.model.adapters import add_adapters
from polaris.model.flops import config_flops, peak_flops
from polaris.plan.cards import card_of_device
from polaris.plan.memory import update_of
from polaris.plan.setup import setup_of
from polaris.plan.shape import shape_of

QWEN3_4B = Qwen3Config(
    vocab_size=151936,
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=131072,
    tie_word_embeddings=True,
)
TINY = Qwen3Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)


PLAIN = RunConfig()
RUNGS = {
    "plain": PLAIN,
    "offload": RunConfig(memory=MemoryConfig(activations="offload")),
    "host": RunConfig(memory=MemoryConfig(optimizer="host")),
    "offload, host": RunConfig(memory=MemoryConfig(activations="offload", optimizer="host")),
    "lora 32": RunConfig(model=ModelConfig(lora=LoraConfig(rank=32))),
    "compile": RunConfig(model=ModelConfig(compile=True)),
}
"""What docs/memory.md offers to a single card."""


def step_config(rung: RunConfig, tokens: int) -> RunConfig:
    """The configuration of a step of one response that fills a pack of `tokens` tokens."""
    return replace(
        rung,
        rollout=RolloutConfig(max_response_tokens=tokens),
        algorithm=AlgorithmConfig(loss="dapo"),
        optimizer=OptimizerConfig(lr=1e-6),
        trainer=TrainerConfig(tokens_per_pack=tokens),
    )


def build_step(config: PretrainedConfig, folder: Path, tokens: int, rung: RunConfig = PLAIN) -> Callable[[], bool]:
    """A callable that trains one pack of `tokens` tokens with the trainer's own update, by the [model] and [memory] of `rung`, and says
    whether the update was applied."""
    from polaris.distributed import mesh
    from polaris.distributed.fsdp import shard
    from polaris.learn.optimizer import build_optimizer
    from polaris.learn.packing import TrainingSample
    from polaris.learn.statistics import Statistics
    from polaris.learn.update import rank_packs, update
    from polaris.model.activations import save_activations
    from polaris.model.compiled import compile_layers
    from polaris.model.load import buffers_to, build_model
    from polaris.model.policy import Policy
    from polaris.run.load_policy import fuse
    from polaris.types import Rollout

    run, dtype, on_host = step_config(rung, tokens), getattr(torch, rung.model.dtype), rung.memory.optimizer == "host"
    config.save_pretrained(folder)
    world = mesh.start()
    model = build_model(folder)
    if run.model.lora.rank:
        add_adapters(model, run.model.lora, dtype)
    policy = shard(Policy(model), world.mesh, dtype, on_host=on_host)
    policy.model.to_empty(device="cpu" if on_host else world.device)
    policy.model.init_weights()
    buffers_to(policy.model, world.device)
    if run.model.compile:
        compile_layers(policy.model)
    fuse(policy, run, world)
    save_activations(policy.model, run.memory.activations, world.device)
    optimizer = build_optimizer(policy, run.optimizer)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, tokens).astype(np.int32)
    rollout = Rollout(
        prompt_id="",
        sample=0,
        tokens=ids[16:],
        logprobs=np.full(tokens - 16, -np.log(config.vocab_size), np.float32),
        versions=np.zeros(tokens - 16, np.int32),
        finish_reason="length",
        temperature=1.0,
        seed=0,
    )
    sample = TrainingSample(prompt_tokens=tuple(ids[:16].tolist()), rollout=rollout, advantage=1.0)
    packs = list(rank_packs([sample], world, tokens))
    return lambda: update(policy, optimizer, packs, [sample], run, Statistics()).applied


def measure_step(config: PretrainedConfig, folder: Path, tokens: int, rung: RunConfig = PLAIN, rounds: int = 3) -> dict[str, float]:
    """Median of `rounds` steps in bfloat16, after two that warm.

    Afterwards policy and optimizer are gone: they sit in reference cycles, which otherwise keep 16 bytes per weight for the next one.
    """
    from polaris.distributed import mesh

    try:
        return _measure_step(config, folder, tokens, rung, rounds)
    finally:
        mesh.stop()
        free()


def _measure_step(config: PretrainedConfig, folder: Path, tokens: int, rung: RunConfig, rounds: int) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step, applied = build_step(config, folder, tokens, rung), []
    for _ in range(2):
        step()
    seconds = statistics.median(timed(lambda: applied.append(step()), device) for _ in range(rounds))
    assert all(applied), "an update was not applied: its loss or gradient was not finite"
    facts = {"s": seconds, "tokens/s": tokens / seconds}
    if device.type == "cuda":
        facts["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        facts["planned GiB"] = planned(folder, tokens, rung) / 2**30
        if peak := peak_flops(torch.cuda.get_device_name()):
            facts["% MFU"] = 100 * config_flops(config).training([tokens], tokens) / seconds / peak
    return facts


def planned(folder: Path, tokens: int, rung: RunConfig) -> float:
    """Bytes that the plan counts for the update of a single pack on this GPU, without its reserve."""
    card = card_of_device(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory)
    setup = setup_of(step_config(rung, tokens), shape_of(folder), card, 1)
    parts = update_of(replace(setup, prompt=0, engine="none", one_pack=True))
    return sum(size for name, size in parts.items() if name != "reserve")
