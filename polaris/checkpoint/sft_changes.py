"""Which settings a resumed `polaris sft` may change: freely, with `--change`, or never."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.checkpoint.changes import Changes, other_adapters
from polaris.config.load import changed_fields, dump_config
from polaris.config.sft import SftConfig

_FREE = (
    # Places; the contents of `data.*`, `eval.*` and `model.path` are compared instead.
    *("name", "root", "data.", "eval.", "model.path", "model.revision", "model.chat_template", "model.lora.sync"),
    # Speed, memory, records and alarms.
    *("trainer.tokens_per_pack", "trainer.cpu_threads", "memory.activations", "memory.optimizer", "deterministic"),
    *("model.fused_modules", "model.compile"),
    *("trainer.max_nonfinite_steps", "checkpoint.", "observe.", "distributed."),
)
_LENGTH = ("trainer.steps", "trainer.epochs")


def find_sft_changes(
    before: SftConfig, after: SftConfig, step: int, content_before: Mapping[str, Any], content_after: Mapping[str, Any]
) -> Changes:
    """All differences between the recorded run, trained to `step`, and the new configuration."""
    never, altering, free = other_adapters(before, after), list[str](), list[str]()
    for part, name in (("model", "model.path holds another model"), ("examples", "[data] gives other examples")):
        if part in content_before and part in content_after and content_before[part] != content_after[part]:
            never.append(f"{name} than the run began with")
    if content_before.get("held_out") != content_after.get("held_out"):
        altering.append("eval.path: other held-out conversations")
    if before.trainer.examples_per_step != after.trainer.examples_per_step:
        sizes = f"{before.trainer.examples_per_step} -> {after.trainer.examples_per_step}"
        never.append(f"trainer.examples_per_step: {sizes}, in which the steps so far are counted")
    scheduled = before.optimizer.schedule != "constant"
    for change in changed_fields(after, dump_config(before)):
        name = change.partition(": ")[0]
        is_free = any(name.startswith(known) if known.endswith(".") else name == known for known in _FREE)
        (free if is_free or (name in _LENGTH and not scheduled) else altering).append(change)
    return Changes(never=tuple(never), altering=tuple(altering), free=tuple(free))
