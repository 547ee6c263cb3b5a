"""The recipe against itself with one element switched off, and with all, on the embedded model, at the same budget of generated tokens.

    python benchmarks/recipe/ablation.py [SEEDS] [ROOT]

Every token that a run samples counts: difficulty pass, temperature probes, training; evaluation does not. The whole recipe sets a seed's
budget; a variant that saves tokens trains for more steps, and its accuracy is that of the last evaluation within the budget. The same
weights are evaluated once more at COOL, the temperature at which the probe finds this model at its best. Runs are ordinary runs below
ROOT (default: runs/ablation): the command goes on where it was stopped. Results go to benchmarks/results/.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from polaris.algorithm.paired import t_quantile
from polaris.embedded import resolve
from polaris.observe.metrics import read_records
from polaris.results import Result

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG, RESULTS = REPOSITORY / "configs" / "quickstart.toml", REPOSITORY / "benchmarks" / "results"
PROMPTS, PROMPT_FILE, STEPS = 1024, "train.jsonl", (30, 20)
COOL = 0.4
COMMON = ["--rollout.engine=transformers", "--trainer.cpu_threads=1", "--eval.every=5", "--final.suite=[]"]
COMMON += ["--checkpoint.every=5", "--checkpoint.keep=100"]
AGAIN = [
    "--suite=embedded:test",
    f"--temperature={COOL}",
    "--samples=4",
    "--top-k=-1",
    "--max-tokens=192",
    "--prompt-suffix=",
    "--buckets=quartiles",
    "--engine=transformers",
    "--dtype=float32",
    "--require-thinking",
    "--workers=1",
]
FIXED = ["--stage.0.temperature=1.0", "--stage.1.temperature=1.0"]
WITHOUT = {
    "no difficulty filter": ["--difficulty.samples_per_prompt=0"],
    "no temperature schedule": FIXED,
    "no substitution": ["--algorithm.substitution=false"],
    "no rescue": ["--algorithm.rescue=0"],
    "no stages": ["--stage.0.max_response_tokens=192", "--stage.0.drop_above=1.0"],
}
VARIANTS = {"whole recipe": [], **WITHOUT, "plain GRPO": [option for options in WITHOUT.values() for option in options]}


def main(seeds: int, root: Path) -> None:
    """Run what is missing, two runs at a time, and write the table."""
    folders, budgets = train_all(root, VARIANTS, seeds, STEPS)
    write("One element of the recipe switched off", Path(__file__).stem, score_all(folders, budgets), budgets)


def train_all(
    root: Path, variants: Mapping[str, list[str]], seeds: int, steps: tuple[int, int]
) -> tuple[dict[tuple[str, int], Path], list[float]]:
    """The finished runs by variant and seed, and each seed's budget, which the first variant sets with `steps` in its two stages."""
    write_prompts(root)
    first, *others = variants
    with ThreadPoolExecutor(max_workers=2) as pool:
        whole = list(pool.map(lambda seed: train(root, first, seed, math.inf, variants=variants, steps=steps), range(seeds)))
        budgets = [generated(folder)[-1][1] for folder in whole]
        jobs = {
            (name, seed): pool.submit(train, root, name, seed, budgets[seed], variants=variants, steps=steps)
            for seed in range(seeds)
            for name in others
        }
    return {(first, seed): folder for seed, folder in enumerate(whole)} | {key: job.result() for key, job in jobs.items()}, budgets


def score_all(folders: Mapping[tuple[str, int], Path], budgets: Sequence[float]) -> dict[float, dict[str, list[float]]]:
    """Held-out avg@4 within the budget, by temperature of the evaluation and variant, of each seed."""
    within = {(name, seed): score_within(folder, budgets[seed]) for (name, seed), folder in folders.items()}
    with ThreadPoolExecutor(max_workers=2) as pool:
        again = dict(zip(within, pool.map(lambda key: score_again(folders[key], within[key][0]), within), strict=True))
    scores = {1.0: {key: score for key, (_, score) in within.items()}, COOL: again}
    names = dict.fromkeys(name for name, _ in folders)
    return {t: {name: [found[name, seed] for seed in range(len(budgets))] for name in names} for t, found in scores.items()}


def train(
    root: Path, name: str, seed: int, budget: float, *, variants: Mapping[str, list[str]] = VARIANTS, steps: tuple[int, int] = STEPS
) -> Path:
    """The finished run's folder; it trains on until `budget` tokens are reached."""
    folder = root / f"{name.replace(' ', '-')}-{seed}"
    command = [sys.executable, "-m", "polaris.train", str(CONFIG), f"--root={root}", f"--name={folder.name}", f"--seed={seed}"]
    command += [f"--data.path={root / PROMPT_FILE}", f"--stage.0.steps={steps[0]}", *COMMON, *variants[name]]
    last, tokens = max(steps[1], steps_of(folder) - steps[0]), 0.0
    while True:
        subprocess.run([*command, f"--stage.1.steps={last}"], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
        tokens = generated(folder)[-1][1]
        if budget == math.inf or tokens >= budget:
            break
        last += math.ceil(1.05 * (budget - tokens) / (tokens / (steps[0] + last)))
    print(f"{folder.name}: {steps[0] + last} steps, {tokens:,.0f} tokens", flush=True)
    return folder


def steps_of(folder: Path) -> int:
    """Steps that a run has made."""
    return max((record["step"] for record in read_records(folder / "metrics.jsonl")), default=0)


def write_prompts(root: Path) -> None:
    """The prompts that all runs below `root` train on."""
    root.mkdir(parents=True, exist_ok=True)
    (root / PROMPT_FILE).write_text("".join(Path(resolve("embedded:train")).read_text().splitlines(keepends=True)[:PROMPTS]))


def generated(folder: Path) -> list[tuple[int, float]]:
    """(step, tokens sampled by the run until then); a stage's probe counts from its first step on."""
    difficulty = Result(folder / "stages" / "difficulty.json").read()
    total = float(difficulty["tokens"]) if difficulty else 0.0
    found, stage = [], -1
    for record in read_records(folder / "metrics.jsonl"):
        if "rollout/tokens" not in record:
            continue
        if record["stage"] > stage:
            stage = record["stage"]
            probe = Result(folder / "stages" / f"temperature-{stage + 1}.json").read()
            total += sum(len(r["per_prompt"]) * r["samples"] * r["length_mean"] for r in probe["readings"]) if probe else 0
        total += record["rollout/tokens"]
        found.append((record["step"], total))
    return found


def score_within(folder: Path, budget: float) -> tuple[int, float]:
    """Step and held-out avg@4 of the last evaluation before which no more than `budget` tokens were sampled."""
    tokens = dict(generated(folder))
    scored = [r for r in read_records(folder / "metrics.jsonl") if "eval/accuracy" in r and tokens.get(r["step"], 0.0) <= budget]
    return scored[-1]["step"], float(scored[-1]["eval/accuracy"])


def score_again(folder: Path, step: int) -> float:
    """Held-out avg@4 of the checkpoint of `step` at the temperature COOL."""
    exported, output = folder / "export" / f"step-{step:06d}", folder / f"cool-{step}"
    commands = [["export", str(folder), f"--step={step}"], ["eval", f"--model={exported}", f"--output={output}", *AGAIN]]
    for command in commands if not exported.is_dir() else commands[1:]:
        subprocess.run([sys.executable, "-m", "polaris.cli", *command], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    (suite,) = json.loads((output / "result.json").read_text())["results"]["1"].values()
    return float(suite["avg"]["mean"])


def student_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval (Student's t) of the mean of `values`, one per seed."""
    half = t_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def table(accuracy: dict[str, list[float]]) -> str:
    """Markdown; differences are paired by seed."""
    whole = np.array(next(iter(accuracy.values())))
    rows = []
    for name, scores in accuracy.items():
        low, high = student_interval(np.array(scores))
        difference = np.array(scores) - whole
        apart = "" if not difference.any() else "{:+.1%} [{:+.1%}, {:+.1%}]".format(difference.mean(), *student_interval(difference))
        rows.append([name, *(f"{score:.1%}" for score in scores), f"{np.mean(scores):.1%} [{low:.1%}, {high:.1%}]", apart])
    head = ["variant", *(f"seed {seed}" for seed in range(len(whole))), "mean", f"difference to {next(iter(accuracy))}"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def write(
    title: str, script: str, accuracy: dict[float, dict[str, list[float]]], budgets: Sequence[float], more: str = "", **facts_too: Any
) -> None:
    """JSON and Markdown, by temperature of the evaluation; `more` is Markdown below, and `facts_too` more fields of the JSON."""
    facts = f"{platform.machine()}, 2 shared cores; torch {version('torch')}, transformers {version('transformers')}"
    text = f"# {title}, {date.today()}, {facts}\n\nHeld-out avg@4 (256 problems) "
    text += f"at the same number of generated tokens ({', '.join(f'{budget:,.0f}' for budget in budgets)}); "
    text += f"intervals: 95 %, Student's t over seeds. `python benchmarks/recipe/{script}.py {len(budgets)}`\n"
    for temperature, found in accuracy.items():
        text += f"\n## Evaluated at temperature {temperature:g}\n\n{table(found)}"
    text += more
    path = RESULTS / f"{script}_cpu-2-cores_{date.today()}"
    path.with_suffix(".md").write_text(text)
    record = {"date": str(date.today()), "facts": facts, "budgets": list(budgets), "accuracy": accuracy, **facts_too}
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{text}\n{path.name}.md")


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "ablation"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place)
