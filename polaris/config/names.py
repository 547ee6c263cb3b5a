"""Names and values in messages of one or two lines: the nearest known name, and values that are cut."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_LONGEST = 60
_MOST = 8


ELSEWHERE = {
    "model_name_or_path": "model.path",
    "dataset_name": "data.path",
    "train_files": "data.path",
    "val_files": "eval.path",
    "output_dir": "root and name",
    "run_name": "name",
    "learning_rate": "optimizer.lr",
    "max_steps": "trainer.steps",
    "total_training_steps": "trainer.steps",
    "save_steps": "checkpoint.every",
    "save_freq": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "eval.every",
    "test_freq": "eval.every",
    "train_batch_size": "trainer.prompts_per_step",
    "num_generations": "rollout.samples_per_prompt",
    "max_completion_length": "rollout.max_response_tokens",
    "max_response_length": "rollout.max_response_tokens",
    "max_prompt_length": "data.max_prompt_tokens",
    "per_device_train_batch_size": "trainer.prompts_per_step and rollout.samples_per_prompt",
    "num_train_epochs": "trainer.steps",
    "total_epochs": "trainer.steps",
    "lr_scheduler_type": "optimizer.schedule",
    "max_grad_norm": "optimizer.grad_clip",
    "epsilon": "algorithm.clip_low",
    "epsilon_high": "algorithm.clip_high",
    "loss_type": "algorithm.loss",
    "scale_rewards": "algorithm.advantage_scale",
    "use_vllm": "rollout.engine",
    "bf16": "model.dtype",
    "report_to": "observe.wandb_project",
}
"""Names of TRL and verl, and the field that they have here."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` was most probably meant to be."""
    close = get_close_matches(name, known, n=1)
    return close[0] if close else None


def instead(name: str, known: Collection[str], where: str) -> str:
    """What to write in the place of an unknown name: the nearest, or one of a few, or what `where` lists."""
    close = nearest(name, known)
    if close:
        return f"did you mean {close!r}?"
    return f"there is {', '.join(known)}" if 0 < len(known) <= _MOST else f"{where} lists what there is"


def shown(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
