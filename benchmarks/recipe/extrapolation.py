"""Train short, generate long: accuracy of the embedded model on problems longer than any training response, with and without YaRN.

    python benchmarks/recipe/extrapolation.py [SEEDS] [STEPS]

Neither the demonstrations of the base model nor any rollout of the training (configs/embedded-recipe.toml, responses cut at 64 tokens) is
longer than 64 tokens. The evaluation draws problems by the tokens of their careful solution, up to four times that.
Writes `benchmarks/results/extrapolation_HARDWARE_DATE.{json,md}`.
"""

from __future__ import annotations

import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from polaris.algorithm.rates import wilson_interval
from polaris.checkpoint.run_folder import RunFolder
from polaris.config.load import QUICKSTART, load_config
from polaris.config.model import RopeConfig
from polaris.distributed import mesh
from polaris.embedded import resolve
from polaris.embedded.task import draw_problem, solution
from polaris.rollout.engine import create_engine
from polaris.rollout.types import Sampling
from polaris.run.checks import check
from polaris.run.context import TrainContext
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.sampling.draw import Draw, draw_groups
from polaris.stop import StopRequest
from polaris.sync.publish import publish
from polaris.types import Prompt

RESULTS = Path(__file__).resolve().parents[1] / "results"
TRAINED_RESPONSE, TRAINED_POSITIONS = 64, 96
"""Tokens of the longest training response, and of it with its prompt."""
EDGES = (32, 64, 96, 128, 192, 256)
PER_BUCKET, SAMPLES, TEMPERATURE, LONGEST = 40, 4, 0.6, 384
ROPES = {
    "without YaRN": RopeConfig(),
    **{
        f"YaRN {factor:g}, attention factor {name}": RopeConfig(
            factor=factor, original_positions=TRAINED_POSITIONS, attention_factor=attention, max_positions=1024
        )
        for factor in (1.5, 2.0, 4.0)
        for name, attention in (("YaRN's", None), ("1", 1.0))
    },
}


def main() -> None:
    seeds, steps = int(sys.argv[1]) if sys.argv[1:] else 3, int(sys.argv[2]) if sys.argv[2:] else 40
    start = time.monotonic()
    world = mesh.start()
    runs = [measure(seed, steps, world) for seed in range(seeds)]
    mesh.stop()
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {cpu_count()} cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("torch", "transformers"))]),
        "command": f"python benchmarks/recipe/extrapolation.py {seeds} {steps}",
        "seconds": round(time.monotonic() - start),
        "steps": steps,
        "longest training response": max(run["longest"] for run in runs),
        "rows": [row(name, [run["accuracy"][name] for run in runs]) for name in ROPES],
    }
    where = f"cpu-{cpu_count()}-cores_{date.today().isoformat()}"
    (RESULTS / f"extrapolation_{where}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"extrapolation_{where}.md").write_text(markdown(result))
    print(markdown(result))


def measure(seed: int, steps: int, world: mesh.World) -> dict[str, Any]:
    """One training, then each rope: avg@n of every problem, by bucket."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            "--rollout.engine=transformers",
            "--trainer.cpu_threads=1",
            f"--rollout.max_response_tokens={TRAINED_RESPONSE}",
            "--stage.0.max_response_tokens=none",
        ]
        config = load_config(QUICKSTART, [f"--root={folder}", f"--seed={seed}", "--data.max_prompt_tokens=32", *settings])
        with open_training(check(config), world, StopRequest()) as context:
            state, longest = resume(context, RunFolder(Path(folder))), 0
            for _ in range(steps):
                state, record, batch = train_step(context, state)
                longest = max(longest, *(len(scored.rollout.tokens) for group in batch.drawn for scored in group.rollouts))
                context.console.step(record)
            buckets = problems(context.sampling.tokenizer, seed)
            return {"longest": longest, "accuracy": {name: accuracy(context, rope, buckets, state.version) for name, rope in ROPES.items()}}


def problems(tokenizer: PreTrainedTokenizerBase, seed: int) -> list[list[Prompt]]:
    """For every pair of edges, prompts whose careful solution has more tokens than the first and at most the second."""
    rng = random.Random(f"extrapolation {seed}")
    buckets: list[list[Prompt]] = [[] for _ in EDGES[1:]]
    while any(len(bucket) < PER_BUCKET for bucket in buckets):
        problem = draw_problem(rng, rng.randint(2, 50))
        needed = len(tokenizer.encode(solution(problem))) + 1
        place = int(np.searchsorted(EDGES, needed)) - 1
        if 0 <= place < len(buckets) and len(buckets[place]) < PER_BUCKET:
            user = {"role": "user", "content": problem.text}
            text = str(tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False))
            name = f"{place}-{len(buckets[place])}"
            buckets[place].append(
                Prompt(id=name, text=text, tokens=tuple(tokenizer.encode(text)), ground_truth=problem.answer, source="extrapolation")
            )
    return buckets


def accuracy(context: TrainContext, rope: RopeConfig, buckets: Sequence[Sequence[Prompt]], served: int) -> list[list[float]]:
    """avg@n of every problem of every bucket, by the trained policy in an engine with this rope."""
    config = context.config
    engine = create_engine(config.rollout, resolve("embedded:model"), config.model, max_model_len=512, seed=config.seed, rope=rope)
    publish(engine, context.learner.weights(), served)
    prompts = [prompt for bucket in buckets for prompt in bucket]
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=LONGEST)
    draw = Draw(prompts=prompts, samples=SAMPLES, sampling=sampling, stream="extrapolation", step=0)
    groups = draw_groups(replace(context.sampling, engine=engine), draw)
    engine.close()
    rates = [float(np.mean([scored.verdict.reward for scored in group.rollouts])) for group in groups]
    return [rates[place * PER_BUCKET : (place + 1) * PER_BUCKET] for place in range(len(buckets))]


def row(name: str, runs: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Mean over the problems of all seeds in each bucket, with its interval."""
    pooled = [np.concatenate([run[place] for run in runs]) for place in range(len(EDGES) - 1)]
    return {"rope": name, "accuracy": [float(rates.mean()) for rates in pooled], "interval": [wilson_interval(r) for r in pooled]}


def markdown(result: dict[str, Any]) -> str:
    head = ["rope", *(f"{low + 1} to {high}" for low, high in pairwise(EDGES))]
    lines = [head, ["---"] * len(head)]
    for one in result["rows"]:
        cells = [
            f"{100 * a:.1f} ({100 * low:.1f}-{100 * high:.1f})" for a, (low, high) in zip(one["accuracy"], one["interval"], strict=True)
        ]
        lines.append([one["rope"], *cells])
    return (
        f"# Train short, generate long, {result['date']}, {result['machine']}\n\n"
        f"{result['versions']}.\nCommand: `{result['command']}` ({result['seconds']} s).\n\n"
        f"Embedded model after {result['steps']} steps in which no response was longer than {result['longest training response']} tokens "
        f"({TRAINED_POSITIONS}\npositions with the prompt, from which YaRN extends). avg@{SAMPLES} in % with 95 % intervals at temperature "
        f"{TEMPERATURE:g}, {PER_BUCKET} problems per seed and\nbucket, by the tokens that a careful solution needs.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
