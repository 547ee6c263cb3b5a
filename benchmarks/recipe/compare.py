"""Variants of a run at the same budget of generated tokens: what `ablation.py`, `track.py`, `curriculum.py`, `core.py` and
`real.py` share.

Every token that a run samples counts: difficulty pass, temperature probes, training; evaluation does not. The first variant sets a seed's
budget; another trains on until it has sampled as much, and its accuracy is that of the last evaluation within the budget. Runs are ordinary
runs below a folder, so a stopped comparison goes on where it was.
"""

from __future__ import annotations

import json
import math
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polaris.algorithm.paired import t_quantile
from polaris.data.sources import read_rows, write_rows
from polaris.embedded import resolve
from polaris.observe.metrics import read_records
from polaris.results import Result

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS, RESULTS = REPOSITORY / "configs", REPOSITORY / "benchmarks" / "results"
ALONE = ["--rollout.engine=transformers", "--trainer.cpu_threads=1", "--eval.every=5", "--final.suite=[]"]
"""Options of embedded runs of which two share the machine."""

STOPPED = 128 + signal.SIGTERM
"""Status of a run that was asked to stop."""
Runs = Mapping[tuple[str, int], Path]
"""The folders of finished runs, by variant and seed."""
Scores = Mapping[str, Sequence[float]]
"""Held-out avg@n of each variant, by seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Which runs are compared."""

    config: Path
    options: Sequence[str]
    """Of all variants; `{seed}` in one is the run's seed."""
    variants: Mapping[str, Sequence[str]]
    """Options of each; the first sets the budget."""
    steps: Sequence[int]
    """Of each stage; of the whole run where there is but one number."""
    root: Path
    seeds: int
    parallel: int = 2
    """Runs at a time."""
    of_fixed_length: Callable[[str], bool] = lambda _: False
    """Variants that do not train on, since their schedule is one of the steps."""
    budgets: Sequence[float] = ()
    """Tokens of each seed, where another machine has trained the variant that sets them."""
    ranks: int = 1
    checkouts: Mapping[str, Path] = field(default_factory=dict)
    """Variants of another commit, by the folder where it is checked out."""

    def run(self) -> tuple[Runs, list[float]]:
        """Run what is missing: all runs, and each seed's budget in tokens."""
        first, *others = self.variants
        with ThreadPoolExecutor(max_workers=self.parallel) as pool:
            given = self.budgets or [math.inf] * self.seeds
            begun = list(pool.map(lambda seed: self._train(first, seed, given[seed]), range(self.seeds)))
            budgets = list(self.budgets) or [sampled(folder) for folder in begun]
            jobs = {(name, seed): pool.submit(self._train, name, seed, budgets[seed]) for seed in range(self.seeds) for name in others}
        return {(first, seed): folder for seed, folder in enumerate(begun)} | {key: job.result() for key, job in jobs.items()}, budgets

    def scores(self, runs: Runs, budgets: Sequence[float]) -> Scores:
        """Held-out avg@n within the budgets."""
        return {name: [score_within(runs[name, seed], budgets[seed])[1] for seed in range(self.seeds)] for name in self.variants}

    def _train(self, name: str, seed: int, budget: float) -> Path:
        """The finished run's folder; one with a budget is asked to stop once it has sampled so many tokens."""
        folder = self.root / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}", "-m"] if self.ranks > 1 else []
        command = [
            sys.executable,
            "-m",
            *launcher,
            "polaris.train",
            str(self.config),
            f"--root={self.root}",
            f"--name={folder.name}",
            f"--seed={seed}",
        ]
        command += [option.replace("{seed}", str(seed)) for option in (*self.options, *self.variants[name])]
        bounded = budget < math.inf and not self.of_fixed_length(name)
        command += self._lengths(self.steps[-1] + (3 * sum(self.steps) if bounded else 0))
        if not (bounded and sampled(folder) >= budget):
            run = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.checkouts.get(name, REPOSITORY))
            while run.poll() is None and not (bounded and sampled(folder) >= budget):
                time.sleep(1)
            if run.poll() is None:
                run.terminate()
            run.wait()
            if run.returncode not in (0, STOPPED) or (bounded and sampled(folder) < budget):
                raise SystemExit(f"{folder} ended with status {run.returncode} after {sampled(folder):,.0f} tokens")
        print(f"{folder.name}: {sampled(folder):,.0f} tokens", flush=True)
        return folder

    def _lengths(self, last: int) -> list[str]:
        if len(self.steps) == 1:
            return [f"--trainer.steps={last}"]
        return [f"--stage.{stage}.steps={steps}" for stage, steps in enumerate((*self.steps[:-1], last))]


def polaris(*command: str) -> None:
    """Run a command of ours, without its output."""
    subprocess.run([sys.executable, "-m", "polaris.cli", *command], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)


def write_prompts(root: Path, most: int) -> str:
    """Write the first `most` embedded problems, which all runs below `root` train on; returns the option that says so."""
    path = root / "train.jsonl"
    write_rows(path, [row for _, row in islice(read_rows(resolve("embedded:train"), "train"), most)])
    return f"--data.path={path}"


def sampled(folder: Path) -> float:
    """Tokens that a run has sampled so far."""
    found = generated(folder)
    return found[-1][1] if found else 0.0


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


def curve(folder: Path) -> list[tuple[int, float, float]]:
    """(step, tokens sampled until then, held-out avg@n) of every evaluation."""
    tokens = dict(generated(folder))
    records = [record for record in read_records(folder / "metrics.jsonl") if "eval/accuracy" in record]
    return [(record["step"], tokens.get(record["step"], 0.0), float(record["eval/accuracy"])) for record in records]


def score_within(folder: Path, budget: float) -> tuple[int, float]:
    """Step and held-out avg@n of the last evaluation before which no more than `budget` tokens were sampled."""
    step, _, accuracy = [point for point in curve(folder) if point[1] <= budget][-1]
    return step, accuracy


def student_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval (Student's t) of the mean of `values`, one per seed."""
    half = t_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def table(accuracy: Scores) -> str:
    """Markdown; differences to the first variant are paired by seed. One seed has no interval."""
    whole, seeds = np.array(next(iter(accuracy.values()))), range(len(next(iter(accuracy.values()))))
    rows = []
    for name, scores in accuracy.items():
        difference = np.array(scores) - whole
        apart = "" if not difference.any() else f"{difference.mean():+.1%}{_interval(difference, '+')}"
        rows.append([name, *(f"{score:.1%}" for score in scores), f"{np.mean(scores):.1%}{_interval(np.array(scores))}", apart])
    head = ["variant", *(f"seed {seed}" for seed in seeds), "mean", f"difference to {next(iter(accuracy))}"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def _interval(values: np.ndarray, sign: str = "") -> str:
    return " [{:{sign}.1%}, {:{sign}.1%}]".format(*student_interval(values), sign=sign) if len(values) > 1 else ""


def machine() -> tuple[str, str]:
    """A short name for files, and what it is."""
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        return card.lower().replace(" ", "-"), card
    return f"cpu-{cpu_count()}-cores", f"{platform.machine()}, {cpu_count()} cores"


def write(
    title: str,
    script: str,
    command: str,
    accuracy: Mapping[str, Scores],
    budgets: Sequence[float],
    more: str = "",
    folder: str = "recipe",
    **too: Any,
) -> None:
    """JSON and Markdown of the scores under headings; `more` is Markdown below, and `too` are further fields of the JSON."""
    short, name = machine()
    facts = f"{name}; torch {version('torch')}, transformers {version('transformers')}"
    tokens = ", ".join(f"{budget:,.0f}" for budget in budgets)
    text = f"# {title}, {date.today()}, {facts}\n\nHeld-out avg@n at the same number of generated tokens ({tokens}); intervals: 95 %, "
    text += f"Student's t over seeds. `python benchmarks/{folder}/{script}.py {command}`\n"
    text += "".join(f"\n## {heading}\n\n{table(scores)}" for heading, scores in accuracy.items()) + more
    path = RESULTS / f"{script}_{short}_{date.today()}"
    path.with_suffix(".md").write_text(text)
    record = {"date": str(date.today()), "facts": facts, "budgets": list(budgets), "accuracy": accuracy, **too}
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{text}\n{path.name}.md")
