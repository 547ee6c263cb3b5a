"""Length shaping on the embedded model: response length and held-out accuracy with and without the reward `length`.

    python benchmarks/recipe/length_shaping.py [STEPS] [SEEDS]

Trains `embedded:model` in one stage of STEPS (40), through vLLM, on the same seeds: with the
math grader alone, and with `length` added at two weights, as a penalty that grows with every token. The base model knows solutions with
all running totals and with a half of them, which are a third shorter and more often wrong: what pays depends on the weight.
Writes `benchmarks/results/length-shaping_HARDWARE_DATE.md`.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from os import cpu_count
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
LIMIT, SOFT_LIMIT, BUFFER = 96, 64, 56
"""The penalty grows from 8 tokens on, so that it acts on every response: they have 14 to 60."""
REWARDS = {"math": 'function = "math"'} | {
    f"math + {weight:g} length": f"function = {{ math = 1.0, length = {weight} }}\n"
    f"options = {{ length = {{ limit = {SOFT_LIMIT}, buffer = {BUFFER} }} }}"
    for weight in (1.0, 4.0)
}
CONFIG = """
name = "shaped"
deterministic = true
model = {{ path = "embedded:model", dtype = "float32" }}
memory = {{ activations = "keep" }}
data = {{ path = "embedded:train", max_prompt_tokens = 64 }}
rollout = {{ samples_per_prompt = 8, max_response_tokens = {limit}, kv_cache_mib = 128 }}
algorithm = {{ loss = "dapo", substitution = true }}
optimizer = {{ lr = 1e-4 }}
trainer = {{ steps = {steps}, prompts_per_step = 16, tokens_per_pack = 32768 }}
checkpoint = {{ every = 1000 }}
eval = {{ path = "embedded:test", every = {steps}, samples_per_prompt = 4, temperature = 1.0 }}
[reward]
workers = 1
{reward}
"""


def main() -> None:
    steps, seeds = (int(sys.argv[place]) if len(sys.argv) > place else given for place, given in ((1, 40), (2, 1)))
    start = time.monotonic()
    rows = [_row(name, [_train(reward, steps, seed) for seed in range(seeds)]) for name, reward in REWARDS.items()]
    machine = f"{platform.machine()} CPU, {cpu_count()} cores"
    versions = f"Python {platform.python_version()}, " + ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    versions += f", vLLM {_vllm_version()}"
    path = RESULTS / f"length-shaping_cpu-{cpu_count()}-cores_{date.today()}.md"
    path.write_text(
        f"# Length shaping\n\n{machine}; {versions}; {date.today()}; {time.monotonic() - start:.0f} s in all; "
        f"`python benchmarks/recipe/length_shaping.py {steps} {seeds}`.\n\n"
        f"`embedded:model`, {steps} steps of 16 prompts x 8 responses of at most {LIMIT} tokens, seeds 0 to {seeds - 1}; held out: all of "
        f"`embedded:test`, 4 responses each at temperature 1. `length` is 0 up to {SOFT_LIMIT - BUFFER} tokens and falls to -1 at "
        f"{SOFT_LIMIT}. Mean over seeds; in brackets, each seed.\n\n"
        "| reward | tokens, held out, before -> after | tokens, first -> last 5 steps | held-out accuracy, before -> after |\n"
        "| --- | --- | --- | --- |\n" + "".join(rows),
        encoding="utf-8",
    )
    print(path.read_text(encoding="utf-8"))


def _vllm_version() -> str:
    """The version of vLLM, whose distribution for CPUs has another name."""
    found = metadata.packages_distributions()["vllm"]
    return metadata.version(found[0])


def _train(reward: str, steps: int, seed: int) -> list[dict[str, Any]]:
    """The records of one run."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        config.write_text(f"seed = {seed}\n" + CONFIG.format(limit=LIMIT, steps=steps, reward=reward), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "polaris.cli", "train", config, f"--root={folder}"], check=True, stdout=sys.stderr)
        return [json.loads(line) for line in (Path(folder) / "shaped" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _row(name: str, runs: list[list[dict[str, Any]]]) -> str:
    evaluations = [[record for record in run if "eval/accuracy" in record] for run in runs]
    training = [[record["response/length_mean"] for record in run if "reward/mean" in record] for run in runs]
    lengths = [_change([run[end]["eval/response/length_mean"] for run in evaluations], ".1f") for end in (0, -1)]
    trained = [_change([statistics.mean(values[part]) for values in training], ".1f") for part in (slice(5), slice(-5, None))]
    accuracy = [_change([run[end]["eval/accuracy"] for run in evaluations], ".3f") for end in (0, -1)]
    return f"| {name} | {' -> '.join(lengths)} | {' -> '.join(trained)} | {' -> '.join(accuracy)} |\n"


def _change(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}}" + (f" ({', '.join(f'{value:{form}}' for value in values)})" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
