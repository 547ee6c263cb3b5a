"""One train step (forward, policy loss, backward, clipping, AdamW) of Qwen3-4B with random weights on one GPU: tokens/s, MFU, peak memory.

Each step trains one response that fills the whole pack, the most expensive way to spend its tokens. About 80 GB of GPU memory.
Reference: prime-rl, Qwen3-4B, 65,536 tokens, 8 H200 with FlashAttention-3: 3,693 tokens/s per GPU, 36.1 % MFU, 36.1 GiB
(benchmarks/results/BENCHMARKS.md of its repository, 2026-02-01).
"""

import numpy as np
import pytest
import torch
from transformers import Qwen3Config

from polaris.config.schema import AlgorithmConfig, ModelConfig, OptimizerConfig, RolloutConfig, RunConfig, TrainerConfig

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
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
"""Dense bfloat16 peak by device name, from NVIDIA's data sheets (SXM)."""


def model_flops(config, tokens):
    """FLOPs of forward and backward over one causal sequence: 6 per matrix weight and token, attention's lower triangle only."""
    width = config.num_attention_heads * config.head_dim
    key_value = config.num_key_value_heads * config.head_dim
    layer = config.hidden_size * (2 * width + 2 * key_value + 3 * config.intermediate_size)
    matrices = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    return 6 * tokens * matrices + 6 * config.num_hidden_layers * width * tokens**2


def open_step(config, folder, tokens, dtype):
    """A callable that trains one pack of `tokens` tokens with the trainer's own update."""
    from polaris.algorithm.metrics import Statistics
    from polaris.distributed import mesh
    from polaris.distributed.fsdp import shard
    from polaris.model.fused import can_fuse, fuse_modules
    from polaris.model.load import build_model
    from polaris.model.policy import Policy
    from polaris.trainer.optimizer import build_optimizer
    from polaris.trainer.packing import Sample
    from polaris.trainer.update import rank_packs, update

    run = RunConfig(
        model=ModelConfig(dtype=dtype),
        rollout=RolloutConfig(max_response_tokens=tokens),
        algorithm=AlgorithmConfig(loss="dapo"),
        optimizer=OptimizerConfig(lr=1e-6),
        trainer=TrainerConfig(tokens_per_pack=tokens),
    )
    config.save_pretrained(folder)
    world = mesh.start()
    policy = shard(Policy(build_model(folder)), world.mesh, getattr(torch, dtype))
    policy.model.to_empty(device=world.device)
    policy.model.init_weights()
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if world.device.type == "cuda" and can_fuse(policy.model):
        fuse_modules(policy.model)
    optimizer = build_optimizer(policy, run.optimizer)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, tokens).astype(np.int32)
    sample = Sample(
        prompt_tokens=tuple(ids[:16].tolist()),
        tokens=ids[16:],
        logprobs=np.full(tokens - 16, -np.log(config.vocab_size), np.float32),
        advantage=1.0,
        temperature=1.0,
    )
    packs = rank_packs([sample], world, tokens)
    return lambda: update(policy, optimizer, packs, None, [sample], run, Statistics())


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [16384, 32768, 65536])
def test_train_step(benchmark, tmp_path, tokens):
    from polaris.distributed import mesh

    torch.cuda.reset_peak_memory_stats()
    step = open_step(QWEN3_4B, tmp_path, tokens, "bfloat16")
    try:
        result = benchmark.pedantic(lambda: (step(), torch.cuda.synchronize())[0], rounds=3, warmup_rounds=2)
    finally:
        mesh.stop()
    assert result.applied
    seconds = benchmark.stats.stats.median
    name = torch.cuda.get_device_name()
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    benchmark.extra_info |= {"tokens_per_s": tokens / seconds, "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30}
    if peak:
        benchmark.extra_info["mfu_percent"] = 100 * model_flops(QWEN3_4B, tokens) / seconds / peak
