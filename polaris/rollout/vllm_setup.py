"""How vLLM's engine is made: its arguments, what it refuses, and what is patched in it before."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
import vllm.v1.engine.core
import vllm.v1.sample.sampler
from vllm import EngineArgs
from vllm.config import get_current_vllm_config
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator, _CPUSHMDistributed
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.model_executor.layers.rotary_embedding.yarn_scaling_rope import YaRNScalingRotaryEmbedding

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import in_one_line
from polaris.model.rope import Rope
from polaris.rollout.types import EngineRefused
from polaris.rollout.vllm_adapter import adapter_arguments
from polaris.rollout.vllm_versions import float32_head, sleep_options

_FP8 = "fp8_per_block"
UNFIT = (TypeError, KeyError, AttributeError, NotImplementedError, AssertionError, ImportError)
"""Errors that vLLM raises while it builds a model that it supports only in part."""


def unfit(model: str, error: Exception) -> EngineRefused:
    return EngineRefused(f'vLLM cannot run {model}; set rollout.engine = "transformers". It says: {in_one_line(error)}')


def check_arguments(arguments: EngineArgs) -> vllm.config.ModelConfig:
    """Let vLLM read the model's configuration; no weight is read.

    Raises:
        EngineRefused: vLLM does not run this model.
    """
    try:
        return arguments.create_model_config()
    except (ValueError, *UNFIT) as error:
        raise unfit(arguments.model, error) from error


def check_beside_trainer(arguments: EngineArgs) -> None:
    """As `check_arguments`, for an engine in a trainer's process.

    Raises:
        EngineRefused: vLLM has no code of its own for this model. It then decorates transformers' decoder class for torch.compile,
            and the trainer's model, of the same class, can no longer be called (vLLM 0.32).
    """
    if check_arguments(arguments).using_transformers_backend():
        raise EngineRefused(
            f"vLLM has no code of its own for {arguments.model} and runs transformers' classes, but changes them so that the trainer "
            'cannot use them in the same process; set rollout.engine = "transformers"'
        )


def engine_arguments(path: str, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope) -> EngineArgs:
    """Arguments that vLLM is started with."""
    on_gpu = torch.cuda.is_available()
    device: dict[str, Any] = (
        {
            "gpu_memory_utilization": rollout.gpu_memory_fraction,
            **sleep_options(),
            "max_num_batched_tokens": max(8192, rollout.max_concurrent),
        }
        if on_gpu
        else {
            "kv_cache_memory_bytes": rollout.kv_cache_mib << 20,
            "block_size": 32,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_model_len, rollout.max_concurrent, 4096),
        }
    )
    head = float32_head() if on_gpu and model.dtype != "float32" else {}
    launched = dist.is_initialized() and "LOCAL_RANK" in os.environ
    return EngineArgs(
        model=path,
        dtype=model.dtype,
        seed=seed,
        max_model_len=max_model_len,
        hf_overrides=rope.overrides | head,
        max_num_seqs=rollout.max_concurrent,
        tensor_parallel_size=rollout.tensor_parallel,
        quantization=_quantization(rollout),
        distributed_executor_backend="external_launcher" if launched else "uni",
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        skip_tokenizer_init=True,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **device,
        **adapter_arguments(model.lora),
    )


def _quantization(rollout: RolloutConfig) -> Any:
    """vLLM's name of what it does to weights as it loads them; None for nothing.

    Raises:
        EngineRefused: this version of vLLM does not know it.
    """
    if rollout.quantization == "none":
        return None
    if _FP8 not in QUANTIZATION_METHODS:
        raise EngineRefused(f"rollout.quantization: this vLLM has no {_FP8}; install a newer one (0.32 has it), or remove it")
    return _FP8


def patch_vllm() -> None:
    """Unpatched, vLLM destroys the trainer's process group on close and, on CPU, compiles one function with g++ (14 s) on first use.

    Its YaRN table ends at original positions x factor, even if `max_position_embeddings` is larger; it then reads beyond the table.
    """
    vllm.v1.engine.core.cleanup_dist_env_and_memory = lambda *args, **kwargs: None
    YaRNScalingRotaryEmbedding._compute_cos_sin_cache = _yarn_table  # type: ignore[method-assign, assignment]
    if not torch.cuda.is_available():
        vllm.v1.sample.sampler.batched_count_greater_than = lambda x, values: (x >= values).sum(-1)
        _CPUSHMDistributed.make_group_name = staticmethod(_shared_memory)  # type: ignore[method-assign, assignment]


def _shared_memory(group: CpuCommunicator) -> str:
    """Name of the memory in which CPU ranks add. vLLM's name is the same for all torchruns: two at once, or one after a kill, fail. So
    does a restart by torchrun, unless the name has its number."""
    run = "-".join([os.environ["MASTER_PORT"], *(os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT"))])
    return f"polaris-{run}-{group.unique_name}-{'-'.join(map(str, group.ranks))}"


def _yarn_table(rotary: YaRNScalingRotaryEmbedding) -> torch.Tensor:
    """Cosines and sines of YaRN for all positions of the model being built: [max_position_embeddings, rotated dimensions]."""
    config = get_current_vllm_config().model_config.hf_text_config
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(positions, rotary._compute_inv_freq(rotary.scaling_factor))
    factor = config.rope_parameters.get("attention_factor", rotary.mscale)
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * factor
