"""Temperature zones of the embedded model before and after a stage of training, and the temperature that restores its diversity.

    python benchmarks/recipe/temperature.py [STEPS]

The probe of the recipe, training at the initial temperature that it finds (60 steps), the retuning after
it, and a second whole probe. Writes `benchmarks/results/temperature-zones_HARDWARE_DATE.{json,md,png}` and the second probe's picture.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

from polaris.algorithm.zones import Zones
from polaris.checkpoint.run_folder import RunFolder
from polaris.config.load import load_config
from polaris.distributed import mesh
from polaris.recipe.plan import plan_stages, stage_config
from polaris.recipe.temperature import TemperatureProbe, probe_temperature, retune
from polaris.run.checks import check
from polaris.run.context import TrainContext
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.stop import StopRequest

RESULTS = Path(__file__).resolve().parents[1] / "results"
CONFIG = """
deterministic = true
model = { path = "embedded:model", dtype = "float32" }
memory = { activations = "keep" }
data = { path = "embedded:train", max_prompt_tokens = 64 }
rollout = { engine = "transformers", max_response_tokens = 192, temperature = 1.0 }
reward = { workers = 1 }
optimizer = { lr = 1e-4 }
trainer = { prompts_per_step = 32, cpu_threads = 1 }
eval = { path = "embedded:test" }

[probe]
diversity = "tokens"
prompts = 120
temperatures = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8]
"""
HEAD = ("temperature", "accuracy", "95 % interval", "distinct 4-grams of tokens", "tokens per response", "cut off", "zone")


def main() -> None:
    steps = int(sys.argv[1]) if sys.argv[1:] else 60
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), steps)
        pictures = {name: (Path(folder) / f"{name}.png").read_bytes() for name in ("before", "after")}
    where = f"cpu-{cpu_count()}-cores_{date.today().isoformat()}"
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {cpu_count()} cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("torch", "transformers"))]),
        "command": f"python benchmarks/recipe/temperature.py {steps}",
        "seconds": round(time.monotonic() - start),
        "steps": steps,
        **found,
    }
    (RESULTS / f"temperature-zones_{where}.json").write_text(json.dumps(result) + "\n")
    (RESULTS / f"temperature-zones_{where}.md").write_text(markdown(result))
    (RESULTS / f"temperature-zones_{where}.png").write_bytes(pictures["before"])
    (RESULTS / f"temperature-zones-trained_{where}.png").write_bytes(pictures["after"])
    print(markdown(result))


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Probe, train, retune, probe again."""
    world = mesh.start()
    (folder / "config.toml").write_text(CONFIG)
    with open_training(check(load_config(folder / "config.toml", [f"--root={folder}"])), world, StopRequest()) as context:
        state = resume(context, RunFolder(folder))
        before = probe_temperature(_probe(context, folder / "before.json"))
        training = context.with_config(stage_config(context.config, plan_stages(context.config)[0], before["temperature"]))
        for _ in range(steps):
            state, record, _ = train_step(training, state)
            context.console.step(record)
        retuned = retune(_probe(context, folder / "retuned.json"), before["temperature"], before["diversity"])
        after = probe_temperature(_probe(context, folder / "after.json"))
    mesh.stop()
    return {"before": before, "retuned": retuned, "after": after}


def _probe(context: TrainContext, path: Path) -> TemperatureProbe:
    return TemperatureProbe(context.sampling, context.held_out, context.config.rollout.max_response_tokens, path)


def markdown(result: dict[str, Any]) -> str:
    before, retuned, after = (result[name] for name in ("before", "retuned", "after"))
    settings = before["settings"]
    parts = [
        f"# Temperature zones of the embedded model, {result['date']}, {result['machine']}",
        f"{result['versions']}.\nCommand: `{result['command']}` ({result['seconds']} s).",
        f"{settings['prompts']} held-out prompts, up to {settings['samples_per_prompt']} samples. Zones: `polaris/algorithm/zones.py`.",
        f"## Before training: initial temperature {before['temperature']:g}\n\n{table(before)}",
        f"## After {result['steps']} steps at {before['temperature']:g}: {retuned['temperature']:g} ({retuned['stopped']})\n\n"
        f"Diversity to restore: {retuned['target']:.4f}.\n\n{table(retuned)}",
        f"## After training, the whole grid: it would begin at {after['temperature']:g}\n\n{table(after)}",
    ]
    return "\n\n".join(parts) + "\n"


def table(result: dict[str, Any]) -> str:
    zones = Zones(**result["zones"]) if "zones" in result else None
    head = HEAD if zones else HEAD[:-1]
    rows = [head, ["---"] * len(head)]
    for values in result["readings"]:
        interval = f"{100 * values['accuracy_low']:.1f}-{100 * values['accuracy_high']:.1f}"
        row = [f"{values['temperature']:g}", f"{100 * values['accuracy']:.1f}", interval, f"{values['tokens']:.4f}"]
        row += [f"{values['length_mean']:.1f}", f"{100 * values['clip_ratio']:.1f} %"]
        rows.append([*row, zones.of(values["temperature"])] if zones else row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
