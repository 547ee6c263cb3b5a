"""Which settings a resumed run may change: freely, with `--change`, or never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from polaris.config.job import JobConfig
from polaris.config.load import changed_fields, dump_config
from polaris.config.schema import RunConfig
from polaris.doors import short

_FREE = (
    # Places. The contents of `data.*`, `eval.path` and `model.path` are compared instead.
    *("name", "root", "data.", "eval.path", "eval.split", "eval.subset", "eval.options.", "eval.columns.", "eval.answer"),
    *("model.path", "model.revision", "model.chat_template", "model.lora.sync", "rollout.engine"),
    # Speed and memory; results change only by the order of float sums.
    *("trainer.tokens_per_pack", "trainer.cpu_threads", "memory.activations", "memory.optimizer", "deterministic"),
    *("model.fused_modules", "model.compile"),
    *("rollout.max_concurrent", "rollout.kv_cache_mib", "rollout.gpu_memory_fraction", "rollout.tensor_parallel"),
    *("rollout.placement", "rollout.engine_ranks", "rollout.engine_timeout_minutes", "rollout.engine_restarts", "rollout.servers"),
    *("reward.workers", "reward.memory_mib"),
    # Length, records, and alarms.
    *("trainer.steps", "trainer.max_nonfinite_steps", "eval.every", "checkpoint.", "observe.", "run.", "final.", "sync.", "distributed."),
)
_ORDER = tuple(f"rollout.{name}" for name in ("max_concurrent", "kv_cache_mib", "gpu_memory_fraction", "tensor_parallel"))
"""With rollout.oversample they decide which groups are complete first, and so what a step trains on."""
_OVER = ("difficulty.", "curation.")
"""Sections of the difficulty pass and curation, which end before the first step."""
_AT_END = ("steps", "drop_above")
"""Settings that a stage reads at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Progress of a run on disk: its newest checkpoint's step, and the number of closed stages."""

    step: int
    closed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Differences between a run on disk and the configuration that resumes it, as `section.key: old -> new`.

    `never`: reasons why it cannot resume the run. `altering`: later steps compute other results. `free`: the same, but for rounding.
    """

    never: tuple[str, ...] = ()
    altering: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


def find_changes(
    before: RunConfig, after: RunConfig, progress: RunProgress, content_before: Mapping[str, Any], content_after: Mapping[str, Any]
) -> Changes:
    """All differences between the recorded run and the new configuration. A fact that only one content has is not a difference."""
    if after.reward.require_thinking == "auto":  # it stays as settled when the run began
        after = replace(after, reward=replace(after.reward, require_thinking=before.reward.require_thinking))
    before, after = _with_bounds(before), _with_bounds(after)
    never, altering = _compare_content(content_before, content_after)
    never += _impossible(before, after, progress) + other_adapters(before, after)
    if before.optimizer.schedule == after.optimizer.schedule == "cosine" and before.steps != after.steps:
        altering.append(f"length of the cosine schedule: {before.steps} -> {after.steps} steps")
    if before.curriculum.target and before.curriculum == after.curriculum and before.steps != after.steps:
        altering.append(f"length of the curriculum: {before.steps} -> {after.steps} steps")
    ends = [set(accumulate(stage.steps for stage in config.stages)) for config in (before, after)]
    if after.rollout.oversample > 1 and progress.step in ends[0] - ends[1]:
        altering.append(f"step {progress.step} is no longer the last: it carried no prompt over")
    first = [short(next(iter(config.reward.weights))) for config in (before, after)]
    if first[0] != first[1]:  # a table in another order has no other fields
        altering.append(f"reward.function: {first[1]} says what is solved, no longer {first[0]}")
    kinds: dict[str, list[str]] = {"never": never, "altering": altering, "free": []}
    for change in changed_fields(after, dump_config(before)) if bool(before.stage) == bool(after.stage) else ():
        kind = _kind(change, before, after, progress)
        reason = "its prompts were chosen before the first step" if change.startswith(_OVER) else "that stage is trained"
        kinds[kind].append(f"{change} ({reason})" if kind == "never" else change)
    return Changes(**{kind: tuple(changes) for kind, changes in kinds.items()})


def other_adapters(before: JobConfig, after: JobConfig) -> list[str]:
    """Why what was trained is not what the new configuration trains: all weights, or adapters of a rank beside some layers."""
    old, new = before.model.lora, after.model.lora
    if old.rank != new.rank:
        return [f"model.lora.rank: {old.rank} -> {new.rank}, so that other parameters are trained"]
    return [f"model.lora.targets: {list(old.targets)} -> {list(new.targets)}"] if set(old.targets) != set(new.targets) else []


def _with_bounds(config: RunConfig) -> RunConfig:
    """With the bounds of the correction written out, as older versions always did: what a left-out bound stands for is no change of it."""
    low, high = config.algorithm.correction_bounds
    return replace(config, algorithm=replace(config.algorithm, correction_low=low, correction_high=high))


def _impossible(before: RunConfig, after: RunConfig, progress: RunProgress) -> list[str]:
    """Reasons why the trained steps are not the first steps of the new configuration."""
    if after.stage and not before.stage:
        return ["it was started without [[stage]] tables; extend it with trainer.steps"]
    if before.stage and not after.stage:
        return ["its [[stage]] tables are gone"]
    begun = _begun(before, progress)
    end = sum(stage.steps for stage in after.stages[:begun])
    if len(after.stages) >= begun and end < progress.step:
        return [
            f"{f'stage.{begun - 1}' if after.stage else 'trainer'}.steps makes {end} the last step, but step {progress.step} is trained"
        ]
    return []


def _kind(change: str, before: RunConfig, after: RunConfig, progress: RunProgress) -> Literal["never", "altering", "free"]:
    name, begun = change.partition(": ")[0], _begun(before, progress)
    if name.startswith("stage."):
        number, field = int(name.split(".")[1]), name.rpartition(".")[2]
        if number < progress.closed or (number < begun and number >= len(after.stage)):
            return "never"
        return "free" if number >= begun or field in _AT_END else "altering"
    if name.startswith(_OVER):
        return "never"
    if name == "rollout.placement" and any(
        config.rollout.placement == "separate" and config.rollout.max_staleness for config in (before, after)
    ):
        return "altering"  # its steps are trained on what older weights have drawn
    if name == "model.lora.sync" and after.model.dtype != "float32":
        return "altering"  # merged adapters are rounded with the weights
    between = progress.closed > 0 and begun == progress.closed
    if name in _ORDER and before.rollout.oversample > 1:
        return "altering"
    return "free" if _is_free(name) or (between and name.startswith("probe.")) else "altering"


def _begun(before: RunConfig, progress: RunProgress) -> int:
    """Number of stages that have begun; between two stages, of closed ones. The first begins with its evaluation, before any step."""
    between = progress.closed > 0 and progress.step <= sum(stage.steps for stage in before.stages[: progress.closed])
    return progress.closed if between else min(progress.closed + 1, len(before.stages))


def _is_free(name: str) -> bool:
    """Whether `section.key` may change at any time since it alters no result."""
    if name.startswith("data.sets.") and name.endswith(".weight"):
        return False
    return any(name.startswith(field) if field.endswith(".") else name == field for field in _FREE)


def _compare_content(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Changes (never allowed, altering results) in the contents that paths and names of a configuration stand for."""
    never, altering = [], []
    both = before.keys() & after.keys()
    if "model" in both:
        parts = {part for part in before["model"] if before["model"][part] != after["model"].get(part)}
        if parts & {"config", "weights"}:
            never.append(f"model.path holds another model than the run began with ({' and '.join(sorted(parts))} differ)")
        elif parts:
            altering.append("model.path: other tokenizer files")
    if "prompts" in both and before["prompts"] != after["prompts"]:
        never.append(_other_prompts(before["prompts"], after["prompts"]))
    if "held_out" in both and before["held_out"] != after["held_out"]:
        altering.append(f"eval.path: {_count(before['held_out'])} -> {_count(after['held_out'])} held-out prompts, with other content")
    if "engine" in both and before["engine"] != after["engine"]:
        altering.append(f"rollout.engine: {before['engine']!r} -> {after['engine']!r}")
    code_before, code_after = before.get("code", {}), after.get("code", {})
    code = {key for key in code_before.keys() & code_after.keys() if not key.startswith("run.")}  # hooks hear of results, and alter none
    edited = [key for key in code if code_before[key] != code_after[key]]
    altering += [f"{key}: the code behind it was edited" for key in sorted(edited)]
    return never, altering


def _other_prompts(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if all(before[key] == after[key] for key in ("prompts", "digest")):
        return "the pass rates of data.path differ from those that this run began with; restore them"
    return (
        f"the {_count(after)} prompts of data.path, as [data] reads them now, are not the {_count(before)} that this run began with; "
        "restore them"
    )


def _count(prompts: Mapping[str, Any] | None) -> int:
    return prompts["prompts"] if prompts else 0
