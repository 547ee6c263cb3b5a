"""Chooses the rollout engine; importing this file loads neither torch nor vLLM."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from polaris import doors
from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused
from polaris.rollout.types import IN_FLIGHT, OPTIONAL, REQUIRED, STEPWISE, Engine, EngineClass, InFlight, Stepwise
from polaris.rollout.vllm_versions import REMEDY, check_version, prepare_process

if TYPE_CHECKING:
    from polaris.model.rope import Rope

KEY = "rollout.engine"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of engine. `check` refuses what cannot be built, before anything is read; `find` imports the class, for this dtype.

    `check_model(path, model, rollout, max_model_len, rope)` refuses a checkpoint that the engine cannot run; no weight is read.
    """

    check: Callable[[RolloutConfig], None]
    find: Callable[[str], EngineClass]
    check_model: Callable[[str, ModelConfig, RolloutConfig, int, Rope], None] | None = None


def _check_vllm(rollout: RolloutConfig) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise Refused(f'{KEY} = "vllm", but vLLM is not installed; {REMEDY}')
    check_version()


def _find_vllm(dtype: str) -> EngineClass:
    prepare_process(dtype)
    from polaris.rollout.vllm_engine import VLLMEngine

    return VLLMEngine


def _check_model_of_vllm(path: str, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, rope: Rope) -> None:
    prepare_process(model.dtype)
    from polaris.rollout.vllm_setup import check_beside_trainer, engine_arguments

    check_beside_trainer(engine_arguments(path, model, rollout, max_model_len, 0, rope))


def _check_transformers(rollout: RolloutConfig) -> None:
    if rollout.tensor_parallel != 1:
        raise Refused(
            f"rollout.tensor_parallel = {rollout.tensor_parallel} needs vLLM, but the engine is transformers; install vllm or set it to 1"
        )
    if rollout.quantization != "none":
        raise Refused(f"rollout.quantization = {rollout.quantization!r} needs vLLM, which is not installed; {REMEDY}")


def _find_transformers(dtype: str) -> EngineClass:
    from polaris.rollout.transformers_engine import TransformersEngine

    return TransformersEngine


ENGINES = {
    "vllm": Kind(_check_vllm, _find_vllm, _check_model_of_vllm),
    "transformers": Kind(_check_transformers, _find_transformers),
}
"""The engines that Polaris brings; "auto" takes the first one that is installed."""


def check_engine(rollout: RolloutConfig) -> str:
    """Name of the engine that `create_engine` builds: "vllm", "transformers", or a user's `module:Class`.

    Raises:
        Refused: it is not installed, its version is not supported, tensor parallelism lacks vLLM, or a class of the user's own lacks a
            member of `Engine`, one of `Stepwise` that rollout.oversample needs, or one of `InFlight` that rollout.placement does.
    """
    if rollout.servers and not rollout.engine_ranks:
        return "vllm"  # on the machines of the servers
    _check_own(rollout)
    return doors.short(_name(rollout))


def _check_own(rollout: RolloutConfig) -> None:
    """`check_engine` for engines on ranks of the job."""
    _kind(rollout).check(rollout)
    if rollout.placement == "separate":
        _check_in_flight(rollout)


def _check_in_flight(rollout: RolloutConfig) -> None:
    """Raise `Refused` unless the engine can have ranks of its own."""
    said = (
        f'rollout.placement = "separate" gives engines new weights in the middle of responses, and {KEY} = {doors.short(_name(rollout))!r}'
    )
    if _name(rollout) == "transformers":
        raise Refused(f"{said} cannot take them; install vLLM, or set rollout.placement to colocated")
    if not doors.is_own(rollout.engine):
        return
    engine = _find_own(rollout.engine, "")
    if missing := [name for name in (*STEPWISE, *IN_FLIGHT) if not hasattr(engine, name)]:
        raise Refused(f"{said} lacks {', '.join(missing)}; polaris.rollout.types.InFlight says what each must do")


def _name(rollout: RolloutConfig) -> str:
    if rollout.engine == "auto":
        return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    return rollout.engine


def _kind(rollout: RolloutConfig) -> Kind:
    return ENGINES.get(_name(rollout)) or Kind(
        lambda rollout: check_class(rollout.engine, rollout.oversample), partial(_find_own, rollout.engine)
    )


def _find_own(name: str, dtype: str) -> EngineClass:
    prepare_process(dtype)  # it may inherit from our vLLM engine
    engine: EngineClass = doors.load(name, KEY)
    return engine


def is_stepwise(engine: Engine) -> TypeGuard[Stepwise]:
    """Whether the engine takes requests from the queue over all engines; one whose class changes `generate` alone is called by that."""
    return _steps(type(engine))


def is_in_flight(engine: Engine) -> TypeGuard[InFlight]:
    """Whether the engine can have ranks of its own."""
    return is_stepwise(engine) and all(hasattr(engine, member) for member in IN_FLIGHT)


def _steps(engine: type) -> bool:
    def owner(name: str) -> type:
        return next((one for one in engine.__mro__ if name in vars(one)), object)

    return all(hasattr(engine, member) for member in STEPWISE) and issubclass(owner("step"), owner("generate"))


def check_class(name: str, oversample: float = 1) -> None:
    """Raise `Refused`, naming it, if a class lacks a member of `Engine`, is not made as `EngineClass` says, or cannot be cut off where
    `oversample` asks for it."""
    engine = _find_own(name, "")
    if not inspect.isclass(engine):
        raise Refused(f"{KEY} = {doors.short(name)!r} is no class; write one with the members of polaris.rollout.types.Engine")
    missing = [member for member in REQUIRED if getattr(engine, member, None) in (None, getattr(Engine, member))]
    if missing:
        raise Refused(f"{KEY} = {doors.short(name)!r} lacks {', '.join(missing)}; polaris.rollout.types.Engine says what each must do")
    inherited = [member for member in OPTIONAL if not hasattr(engine, member)]
    if inherited:
        raise Refused(
            f"{KEY} = {doors.short(name)!r} lacks {', '.join(inherited)}; inherit from polaris.rollout.types.Engine, where it is optional"
        )
    if oversample > 1 and not _steps(engine):
        missing = [member for member in STEPWISE if not hasattr(engine, member)]
        why = f"lacks {', '.join(missing)}" if missing else "changes generate, but not step"
        raise Refused(
            f"rollout.oversample = {oversample:g} cuts responses off, for which {KEY} = {doors.short(name)!r} {why}; remove it, or write "
            "what polaris.rollout.types.Stepwise asks for"
        )
    keywords = ("model", "rollout", "max_model_len", "seed", "rope")
    said = f"{KEY} = {doors.short(name)!r} is made as Class(folder, {'=, '.join(keywords)}=), but it has "
    doors.check_call(engine, said, "folder", **dict.fromkeys(keywords))


def check_model(rollout: RolloutConfig, model_path: str | Path, model: ModelConfig, *, max_model_len: int, rope: RopeConfig) -> None:
    """Check that the engine of `create_engine` can run this model; no weight is read.

    Raises:
        EngineRefused: it cannot, with the reason and the setting that helps.
    """
    check = _kind(rollout).check_model
    if check is not None:
        from polaris.model.rope import resolve_rope

        check(str(model_path), model, rollout, max_model_len, resolve_rope(model_path, rope))


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
    _check_own(rollout)
    build = _kind(rollout).find(model.dtype)
    engine = build(model_path, model=model, rollout=rollout, max_model_len=max_model_len, seed=seed, rope=resolved)
    try:  # None without a table: the trainer then compares log-probs (`make_far_probe`)
        check_rope("rollout engine", resolved, engine.rotary_table)
    except BaseException:
        engine.close()
        raise
    return engine
