"""The longest run that fits: accuracy on held-out problems before it, the training, accuracy after it; each with its 95 % interval.

The run's folder stays, so a further call on the same machine goes on where this one has stopped.
"""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.gpu.loop import CONFIG, KIT, overrides, runs, settings, train
from benchmarks.gpu.program import STOP_S, polaris, torchrun
from benchmarks.gpu.program import call as call_program
from benchmarks.kernels.peers import Unavailable
from polaris.checkpoint import layout

NAME = "real"
MODELS = ("qwen-coder", "smollm2")
EVALUATION_S = 100.0
"""An engine's start and all held-out problems."""
SAMPLES = 4


def figures(call: Call) -> Iterator[Figure]:
    if call.small:  # a dry run shows all of it each time
        shutil.rmtree(runs(call) / NAME, ignore_errors=True)
    yield Figure(name="before", seconds=EVALUATION_S, run=partial(before, call))
    seconds = max(60.0, call.left() - EVALUATION_S - STOP_S)
    yield Figure(name="training", seconds=seconds + STOP_S, least=seconds, run=partial(training, seconds, call))
    yield Figure(name="after", seconds=EVALUATION_S, run=partial(after, call))


def before(call: Call) -> Iterator[Line]:
    return evaluate("before", settings(call, NAME, *MODELS)["model.path"], runs(call) / "real-before", call)


def training(seconds: float, call: Call) -> Iterator[Line]:
    yield from train("training", torchrun(CONFIG, *overrides(settings(call, NAME, *MODELS))), call, seconds)
    if (metrics := runs(call) / NAME / "metrics.jsonl").is_file():
        shutil.copy(metrics, call.folder / "real-metrics.jsonl")


def after(call: Call) -> Iterator[Line]:
    run = runs(call) / NAME
    if not (steps := layout.complete_steps(run / "checkpoints")):
        raise Unavailable("the training has left no checkpoint")
    step = steps[-1]
    folder = run / "export" / f"step-{step:06d}"
    if not folder.is_dir():
        call_program(polaris("export", run, "--step", step, "--output", folder), call.left())
    return evaluate("after", str(folder), runs(call) / f"real-after-{step}", call)


def evaluate(name: str, model: str, output: Path, call: Call) -> Iterator[Line]:
    """avg@n of the held-out problems with its interval over problems, as `polaris eval` tells it."""
    began = time.perf_counter()
    suite, tokens, dtype = ("embedded:test", 64, "float32") if call.small else (str(KIT / "data/test.jsonl"), 1024, "bfloat16")
    suffix = "" if call.small else tomllib.loads(CONFIG.read_text())["data"]["prompt_suffix"]
    options = ["--suite", suite, "--output", output, "--samples", 1 if call.small else SAMPLES, "--temperature", 1.0, "--top-k", -1]
    options += ["--max-tokens", tokens, "--prompt-suffix", suffix, "--dtype", dtype]
    call_program(polaris("eval", "--model", model, *options), call.left())
    results = json.loads((output / "result.json").read_text())["results"]
    (result,) = (of_set for of_factor in results.values() for of_set in of_factor.values())
    score = result["avg"]
    values = {"held-out accuracy": score["mean"], "low": score["low"], "high": score["high"], "problems": result["problems"]}
    yield Line(name=name, values=values | {"samples": result["samples"], "s": time.perf_counter() - began})
