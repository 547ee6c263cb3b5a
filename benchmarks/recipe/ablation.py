"""The recipe against itself with one element switched off, on the embedded model, at the same budget of generated tokens.

    python benchmarks/recipe/ablation.py [SEEDS] [ROOT]

Every token that a run samples counts: difficulty pass, temperature probes, training; evaluation does not. The whole recipe sets a seed's
budget; a variant that saves tokens trains for more steps, and its accuracy is that of the last evaluation within the budget. Runs are
ordinary runs below ROOT (default: runs/ablation): the command goes on where it was stopped. Results go to benchmarks/results/.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from polaris.algorithm.intervals import bootstrap_interval
from polaris.embedded import resolve
from polaris.observe.metrics import read_records
from polaris.recipe.results import read_result

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG, RESULTS = REPOSITORY / "configs" / "quickstart.toml", REPOSITORY / "benchmarks" / "results"
PROMPTS, STEPS = 1024, (30, 20)
COMMON = ["--rollout.engine=transformers", "--trainer.cpu_threads=1", "--eval.every=5", "--checkpoint.every=25", "--final.suite=[]"]
FIXED = ["--stage.0.temperature=1.0", "--stage.1.temperature=1.0"]
VARIANTS = {
    "whole recipe": [],
    "no difficulty filter": ["--difficulty.samples_per_prompt=0"],
    "no temperature schedule": FIXED,
    "no substitution": ["--algorithm.substitution=false"],
    "no rescue": ["--algorithm.rescue=0"],
    "no stages": ["--stage.0.max_response_tokens=192", "--stage.0.drop_above=1.0"],
}


def main(seeds: int, root: Path) -> None:
    """Run what is missing and write the table."""
    accuracy: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        budget = math.inf
        for name, overrides in VARIANTS.items():
            folder = train(root, name, seed, overrides, budget)
            budget = generated(folder)[-1][1] if budget == math.inf else budget
            within = [score for tokens, score in evaluations(folder) if tokens <= budget]
            accuracy[name].append(within[-1])
            print(f"seed {seed}, {name}: {within[-1]:.1%} at {budget:,.0f} tokens", flush=True)
    write(accuracy, root)


def train(root: Path, name: str, seed: int, overrides: Sequence[str], budget: float) -> Path:
    """The finished run's folder; it trains on until `budget` tokens are surely reached."""
    folder = root / f"{name.replace(' ', '-')}-{seed}"
    data = root / "train.jsonl"
    if not data.is_file():
        root.mkdir(parents=True, exist_ok=True)
        data.write_text("".join(Path(resolve("embedded:train")).read_text().splitlines(keepends=True)[:PROMPTS]))
    last = STEPS[1] if budget == math.inf else STEPS[1] + 60
    command = [sys.executable, "-m", "polaris.train", str(CONFIG), f"--root={root}", f"--name={folder.name}", f"--seed={seed}"]
    command += [f"--data.path={data}", f"--stage.0.steps={STEPS[0]}", f"--stage.1.steps={last}", *COMMON, *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    if budget != math.inf and generated(folder)[-1][1] < budget:
        raise SystemExit(f"{folder} ends below the budget of {budget:,.0f} tokens; raise the steps in {Path(__file__).name}")
    return folder


def generated(folder: Path) -> list[tuple[int, float]]:
    """(step, tokens sampled by the run until then); a stage's probe counts from its first step on."""
    difficulty = read_result(folder / "stages" / "difficulty.json")
    total = float(difficulty["tokens"]) if difficulty else 0.0
    found, stage = [], -1
    for record in read_records(folder / "metrics.jsonl"):
        if "rollout/tokens" not in record:
            continue
        if record["stage"] > stage:
            stage = record["stage"]
            probe = read_result(folder / "stages" / f"temperature-{stage + 1}.json")
            total += (
                sum(len(r["per_prompt"]) * probe["settings"]["samples_per_prompt"] * r["length_mean"] for r in probe["readings"])
                if probe
                else 0
            )
        total += record["rollout/tokens"]
        found.append((record["step"], total))
    return found


def evaluations(folder: Path) -> list[tuple[float, float]]:
    """(tokens sampled before it, held-out avg@4) of every evaluation."""
    tokens = dict(generated(folder))
    return [(tokens.get(r["step"], 0.0), r["eval/accuracy"]) for r in read_records(folder / "metrics.jsonl") if "eval/accuracy" in r]


def write(accuracy: dict[str, list[float]], root: Path) -> None:
    """JSON and Markdown; the interval is a bootstrap over seeds, which three make wide."""
    whole = np.array(accuracy["whole recipe"])
    rows = []
    for name, scores in accuracy.items():
        low, high = bootstrap_interval(np.array(scores) - whole, seed=0) if name != "whole recipe" else (0.0, 0.0)
        rows.append(
            [
                name,
                *(f"{score:.1%}" for score in scores),
                f"{np.mean(scores):.1%}",
                f"{np.mean(scores - whole):+.1%} [{low:+.1%}, {high:+.1%}]",
            ]
        )
    head = ["variant", *(f"seed {seed}" for seed in range(len(whole))), "mean", "difference to the whole recipe"]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    facts = f"{platform.machine()}, 2 shared cores; torch {version('torch')}, transformers {version('transformers')}"
    text = f"# One element of the recipe switched off, {date.today()}, {facts}\n\nHeld-out avg@4 (256 problems, temperature 1) "
    text += f"at the same number of generated tokens; `python benchmarks/recipe/ablation.py {len(whole)}`.\n\n" + "\n".join(lines) + "\n"
    path = RESULTS / f"ablation_cpu-2-cores_{date.today()}"
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".json").write_text(json.dumps({"date": str(date.today()), "facts": facts, "accuracy": accuracy}, indent=1) + "\n")
    print(f"{text}\n{path}.md; runs in {root.name}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "ablation")
