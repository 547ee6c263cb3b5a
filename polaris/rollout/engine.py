"""Chooses the rollout engine; importing this file loads neither torch nor vLLM."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused
from polaris.rollout.types import Engine
from polaris.rollout.vllm_versions import REMEDY, check_version, prepare_process

if TYPE_CHECKING:
    from polaris.rollout.transformers_engine import TransformersEngine
    from polaris.rollout.vllm_engine import VLLMEngine


def check_engine(rollout: RolloutConfig) -> str:
    """Name of the engine that `create_engine` builds: "vllm" or "transformers".

    Raises:
        ValueError: vLLM is asked for but not installed, its version is not supported, or tensor parallelism lacks vLLM.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if not installed and rollout.engine == "vllm":
        raise Refused(f'rollout.engine = "vllm", but vLLM is not installed; {REMEDY}')
    name = "vllm" if installed and rollout.engine != "transformers" else "transformers"
    if name == "vllm":
        check_version()
    if name != "vllm" and rollout.tensor_parallel != 1:
        raise Refused(
            f"rollout.tensor_parallel = {rollout.tensor_parallel} needs vLLM, but the engine is transformers; install vllm or set it to 1"
        )
    return name


def check_model(rollout: RolloutConfig, model_path: str | Path, model: ModelConfig, *, max_model_len: int, rope: RopeConfig) -> None:
    """Check that the engine of `create_engine` can run this model; no weight is read.

    Raises:
        EngineRefused: it cannot, with the reason and the setting that helps.
    """
    if check_engine(rollout) != "vllm":
        return
    prepare_process(model.dtype)
    from polaris.model.rope import resolve_rope
    from polaris.rollout.vllm_engine import check_beside_trainer, engine_arguments

    check_beside_trainer(engine_arguments(str(model_path), model, rollout, max_model_len, 0, resolve_rope(model_path, rope)))


def create_engine(
    rollout: RolloutConfig, model_path: str | Path, model: ModelConfig, *, max_model_len: int, seed: int, rope: RopeConfig | None = None
) -> Engine:
    """Engine on the checkpoint folder `model_path`, for sequences (prompt and response) of at most `max_model_len` tokens.

    `seed` is for the engine only; the seed of each request decides its tokens. Without `rope`, the checkpoint's own.

    Raises:
        ValueError: these settings do not fit the checkpoint or this machine.
        RopeMismatch: the engine's rotary angles are not those of `rope`.
    """
    from polaris.model.rope import resolve_rope
    from polaris.model.rope_check import check_rope

    resolved = resolve_rope(model_path, rope or RopeConfig())
    if max_model_len > resolved.max_positions:
        raise Refused(
            f"sequences of {max_model_len} tokens exceed the model's {resolved.max_positions} positions; shorten the responses, "
            "or set rope.factor or rope.max_positions"
        )
    engine: VLLMEngine | TransformersEngine
    if check_engine(rollout) == "vllm":
        prepare_process(model.dtype)
        from polaris.rollout.vllm_engine import VLLMEngine

        engine = VLLMEngine(model_path, model=model, rollout=rollout, max_model_len=max_model_len, seed=seed, rope=resolved)
    else:
        from polaris.rollout.transformers_engine import TransformersEngine

        engine = TransformersEngine(model_path, model=model, rollout=rollout, max_model_len=max_model_len, rope=resolved)
    try:  # None without a table: the trainer then compares log-probs (`make_far_probe`)
        check_rope("rollout engine", resolved, engine.rotary_table)
    except BaseException:
        engine.close()
        raise
    return engine
