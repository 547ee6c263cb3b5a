"""How an evaluated run was trained, if the evaluation asks it in another way."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polaris.checkpoint.branch import parse
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.runs import is_run
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.doors import is_gym, short
from polaris.evaluation.settings import PLAIN, EvalSettings
from polaris.observe.metrics import read_records

_FORMED = ("math", "exact", "reasoning_gym")
"""Rewards that look for the answer where `reward.answer` says."""


def graded_otherwise(settings: EvalSettings) -> str:
    """That the run was solved by another reward, another form of the answer, or other scores than this evaluation grades by; "" if by the
    same, or the model is neither a run nor its export."""
    config = _config(settings.model.path)
    if config is None:
        return ""
    first, form, above = short(next(iter(config.reward.weights))), config.reward.answer, config.reward.success_above
    same = first == "math" or (first == "reasoning_gym" and all(map(is_gym, settings.suite)))
    other = [] if same else [first]
    other += [f"reward.answer = {form!r}"] if same and form != settings.reward.answer else []
    other += [f"reward.success_above = {above:g}"] if same and above is not None and above != settings.reward.success_above else []
    asked = "in boxes" if settings.reward.answer == PLAIN.answer else f"as {settings.reward.answer!r}"
    correct = "a full score is" if settings.reward.success_above is None else f"scores above {settings.reward.success_above:g} are"
    grader = f"{first if same else 'the math grader'} (only answers {asked}, {correct} correct)"
    return f"{grader}, not {' and '.join(other)} of the run, whose own evaluations are in its metrics.jsonl and report" if other else ""


def trained_otherwise(settings: EvalSettings) -> str:
    """Options of `polaris eval` that match the run's last stage; "" if `settings` match, or the model is not a run."""
    run, _ = parse(settings.model.path)
    config = _config(settings.model.path) if is_run(run) else None
    if config is None:
        return ""
    temperature, tokens = config.sampling(config.stages[-1])
    if isinstance(temperature, str):  # measured as the run went on
        temperature = _last_temperature(run) or settings.temperature
    options: dict[str, tuple[Any, Any]] = {  # the run's value, this evaluation's value
        "--prompt-suffix": (config.data.prompt_suffix, settings.prompt_suffix),
        "--temperature": (temperature, settings.temperature),
        "--top-k": (-1, settings.top_k),
        "--max-tokens": (tokens, settings.max_response_tokens),
        "--dtype": (config.model.dtype, settings.model.dtype),
    }
    if config.data.system_prompt or settings.system_prompt:
        options["--system-prompt"] = (config.data.system_prompt, settings.system_prompt)
    forms = (config.reward.answer, settings.reward.answer)
    if forms != (PLAIN.answer, PLAIN.answer) and short(next(iter(config.reward.weights))) in _FORMED:
        options["--answer-form"] = forms
    chat = config.data.chat_template_options
    if all(trained == asked for trained, asked in options.values()) and chat == settings.chat_template_options:
        return ""
    words = [
        f"{name} {shlex.quote(f'{trained:g}' if isinstance(trained, float) else str(trained))}" for name, (trained, _) in options.items()
    ]
    words += [f"--chat-option {name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chat.items()]
    return " ".join(words)


def folder_behind(model: str) -> Path | None:
    """The run that `model` names, or of whose exports it is one; None for any other model."""
    run, _ = parse(model)
    exported = Path(model).parent
    return next((one for one in (run, exported.parent if exported.name == "export" else run) if is_run(one)), None)


def lineage(model: str) -> Iterator[RunConfig | SftConfig]:
    """The configurations of the run behind `model`, of the one whose weights that began with, and so on."""
    seen = set[Path]()
    while (place := folder_behind(model)) is not None and place not in seen:
        record = RunFolder(place).record()
        if record is None:
            return
        yield record.config
        seen.add(place)
        model = record.config.model.path


def _config(model: str) -> RunConfig | None:
    """Of the training run behind `model`."""
    config = next(lineage(model), None)
    return config if isinstance(config, RunConfig) else None


def _last_temperature(run: Path) -> float | None:
    """That of the newest step; None before there is one."""
    sampled = [record["rollout/temperature"] for record in read_records(run / "metrics.jsonl") if "rollout/temperature" in record]
    return sampled[-1] if sampled else None
