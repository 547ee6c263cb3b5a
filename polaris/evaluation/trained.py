"""How an evaluated run was trained, if the evaluation asks it in another way."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from polaris.checkpoint.branch import parse
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.runs import is_run
from polaris.config.schema import RunConfig
from polaris.doors import is_gym, short
from polaris.evaluation.settings import EvalSettings


def graded_otherwise(settings: EvalSettings) -> str:
    """That the run was solved by another reward than the grader of `polaris eval`; "" if by the same, or the model is not a run."""
    config = _config(settings)
    first = "math" if config is None else short(next(iter(config.reward.weights)))
    if first == "math" or (first == "reasoning_gym" and all(map(is_gym, settings.suite))):
        return ""
    return f"the math grader (only answers in boxes), not {first} of the run, whose own evaluations are in its metrics.jsonl and report"


def trained_otherwise(settings: EvalSettings) -> str:
    """Options of `polaris eval` that match the run's last stage; "" if `settings` match, or the model is not a run."""
    config = _config(settings)
    if config is None:
        return ""
    last = config.stages[-1]
    temperature = config.rollout.temperature if last.temperature is None else last.temperature
    tokens = config.rollout.max_response_tokens if last.max_response_tokens is None else last.max_response_tokens
    options: dict[str, tuple[Any, Any]] = {  # the run's value, this evaluation's value
        "--prompt-suffix": (config.data.prompt_suffix, settings.prompt_suffix),
        "--temperature": (settings.temperature if temperature == "probe" else temperature, settings.temperature),
        "--top-k": (-1, settings.top_k),
        "--max-tokens": (tokens, settings.max_response_tokens),
    }
    if config.data.system_prompt or settings.system_prompt:
        options["--system-prompt"] = (config.data.system_prompt, settings.system_prompt)
    chat = config.data.chat_template_options
    if all(trained == asked for trained, asked in options.values()) and chat == settings.chat_template_options:
        return ""
    words = [
        f"{name} {shlex.quote(f'{trained:g}' if isinstance(trained, float) else str(trained))}" for name, (trained, _) in options.items()
    ]
    words += [f"--chat-option {name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chat.items()]
    return " ".join(words)


def run_behind(model: str) -> RunConfig | None:
    """The configuration of the run that `model` names, or of whose exports it is one; None for any other model."""
    run, _ = parse(model)
    exported = Path(model).parent
    place = next((one for one in (run, exported.parent if exported.name == "export" else run) if is_run(one)), None)
    record = None if place is None else RunFolder(place).record()
    return record.config if record and isinstance(record.config, RunConfig) else None


def _config(settings: EvalSettings) -> RunConfig | None:
    run, _ = parse(settings.model.path)
    record = RunFolder(run).record() if is_run(run) else None
    return record.config if record and isinstance(record.config, RunConfig) else None
