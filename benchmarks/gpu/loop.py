"""The real loop through torchrun: the recipe in miniature, a small real model on real problems; a line per step, as metrics.jsonl grows."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.gpu.program import ROOT, STOP_S, follow, torchrun
from benchmarks.kernels.peers import Unavailable
from polaris.embedded import resolve
from polaris.model.flops import config_flops, peak_flops

KIT, CONFIG = ROOT / ".gpu", Path(__file__).with_name("small_model.toml")
TOLD = (
    "seconds/",
    "throughput/",
    "memory/",
    "sync/",
    "mismatch/",
    "reward/accuracy",
    "response/length_mean",
    "eval/accuracy",
    "optimizer/",
)
"""What of a record goes into its line."""
EMBEDDED = {
    "model.path": "embedded:model",
    "model.dtype": "float32",
    "data.path": "embedded:train",
    "data.prompt_suffix": "",
    "data.decontaminate": "[]",
    "eval.path": "embedded:test",
    "rollout.max_response_tokens": 64,
    "rollout.samples_per_prompt": 4,
    "rollout.kv_cache_mib": 256,
    "trainer.prompts_per_step": 8,
    "trainer.steps": 2,
    "trainer.cpu_threads": 1,
    "eval.samples_per_prompt": 1,
}
"""Overrides of a dry run."""
RECIPE_S, SMALL_MODEL_S = 150.0, 240.0
_LEAST_S = 90.0
"""With less time left a run's engine would hardly start before it is asked to stop."""
MINIATURE = {"difficulty.samples_per_prompt": 2, "probe.prompts": 4, "probe.samples_per_prompt": 2, "trainer.prompts_per_step": 8}
MINIATURE |= {"stage.0.steps": 1, "stage.1.steps": 1, "eval.samples_per_prompt": 1, "final.samples_per_prompt": 1}


def figures(call: Call) -> Iterator[Figure]:
    yield Figure(name="embedded model", seconds=200, run=embedded_model)
    yield Figure(name="recipe", seconds=RECIPE_S + STOP_S, least=_LEAST_S, run=partial(recipe, call))
    yield Figure(name="small model", seconds=SMALL_MODEL_S + STOP_S, least=_LEAST_S, run=partial(small_model, call))


def embedded_model() -> Iterator[Line]:
    """Built once on each machine, on its CPU."""
    began = time.perf_counter()
    resolve("embedded:model")
    yield Line(name="embedded model", values={"s": time.perf_counter() - began})


def recipe(call: Call) -> Iterator[Line]:
    values = place(call, "recipe") | (MINIATURE if call.small else {})
    return train("recipe", torchrun("configs/embedded-recipe.toml", *overrides(values), "--fresh"), call, RECIPE_S)


def small_model(call: Call) -> Iterator[Line]:
    return train("small model", torchrun(CONFIG, *overrides(settings(call, "small-model", "smollm2")), "--fresh"), call, SMALL_MODEL_S)


def place(call: Call, name: str) -> dict[str, Any]:
    return {"root": runs(call), "name": name}


def runs(call: Call) -> Path:
    return ROOT / "runs" / ("gpu-small" if call.small else "gpu")


def settings(call: Call, name: str, *models: str) -> dict[str, Any]:
    """Overrides of `small_model.toml`: the first of the models that the kit holds, or a dry run with the embedded one."""
    return place(call, name) | (EMBEDDED if call.small else {"model.path": kit_model(*models)})


def kit_model(*names: str) -> str:
    """The folder of the first of the models that is there."""
    for name in names:
        if (folder := KIT / "models" / name).is_dir():
            return str(folder)
    raise Unavailable(f"the kit has not been unpacked, or holds none of {', '.join(names)}")


def overrides(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={value}" for key, value in values.items()]


def train(name: str, command: list[str], call: Call, seconds: float) -> Iterator[Line]:
    """A line for each record of the run, and one that sums them up; the report goes to the results."""
    root, run = (Path(option(command, key)) for key in ("root", "name"))
    began, seen, config = time.perf_counter(), [], None
    try:
        for record in follow(command, root / run / "metrics.jsonl", time.time() + min(seconds, call.left() - STOP_S)):
            config = config or json.loads((root / run / "config.json").read_text())
            seen.append(record)
            kind = "evaluation" if "eval/accuracy" in record else "step"
            row = {"test": f"{name}, {kind}s", "case": str(record["step"]), "parameters": {"name": name}}
            yield Line(name=f"{name}, {kind} {record['step']}", values=facts(record, config["model"]["path"]), row=row)
    finally:
        for file in ("report.html", "report.png"):
            if (root / run / file).is_file():
                shutil.copy(root / run / file, call.folder / f"{run}-{file}")
    row = {"test": "runs", "case": name, "parameters": {"name": name}}
    yield Line(name=name, values=summed(seen) | {"s": time.perf_counter() - began}, row=row)


def option(command: list[str], key: str) -> str:
    return next(argument for argument in command if argument.startswith(f"--{key}=")).partition("=")[2]


def facts(record: dict[str, Any], model: str) -> dict[str, float]:
    """A record's figures, and the arithmetic of its update."""
    values = {key: value for key, value in record.items() if key.startswith(TOLD) and isinstance(value, int | float)}
    if "throughput/train_tokens_per_s" not in record:
        return values
    length = record["response/length_mean"]
    per_token = config_flops(AutoConfig.from_pretrained(resolve(model))).training([length], length) / length
    flops = per_token * record["throughput/train_tokens_per_s"]
    values["update TFLOP/s"] = flops / 1e12
    return values if (peak := peak_flops(os.environ["CARD"])) is None else values | {"% MFU of the update": 100 * flops / peak}


def summed(seen: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the steps but the first, which warms, and the first and last held-out accuracy."""
    steps = [record for record in seen if "seconds/step" in record]
    scores = [record["eval/accuracy"] for record in seen if "eval/accuracy" in record]
    keys = [key for key in (steps[-1] if steps else {}) if key.startswith(("seconds/", "throughput/", "memory/", "sync/"))]
    values = {"steps": len(steps)} | {f"median {key}": statistics.median(r[key] for r in steps[1:] or steps if key in r) for key in keys}
    return values | ({"held-out accuracy, first": scores[0], "held-out accuracy, last": scores[-1]} if scores else {})
