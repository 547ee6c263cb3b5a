"""The process reward CORE beside the outcome alone, on the embedded model, at the same budget of generated tokens.

    python benchmarks/recipe/core.py [SEEDS] [ROOT] [STEPS]

Both train by plain GRPO (configs/embedded-grpo.toml) with rescue; CORE adds `reward.process`, by which the running totals of a response
that is wrong earn up to a half. The run with the outcome alone sets a seed's budget; the accuracy of each is that of the last evaluation
within it. Runs are ordinary runs below ROOT (default: runs/core): the command goes on where it was stopped. Results go to
benchmarks/results/.
"""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from itertools import islice
from os import cpu_count
from pathlib import Path

from ablation import REPOSITORY, RESULTS, generated, score_within, table

from polaris.data.sources import read_rows, write_rows
from polaris.embedded import resolve
from polaris.observe.metrics import read_records

CONFIG, STEPS = REPOSITORY / "configs" / "embedded-grpo.toml", 60
COMMON = ["--rollout.engine=transformers", "--trainer.cpu_threads=1", "--eval.every=5", "--checkpoint.every=20", "--algorithm.rescue=1"]
PROMPTS, PROMPT_FILE = 512, "train.jsonl"
"""Few enough for four epochs, so that sets grow: a prompt that comes once meets only the results of its own group."""
CORE = ["--reward.process.most=0.5", r"--reward.process.marker=[=:](-?\d+)"]
VARIANTS = {"outcome alone": [], "CORE": CORE, "CORE, frozen": [*CORE, "--reward.process.denominator=frozen"]}
LAST = 10
"""Steps at the end over which the metrics of the process reward are averaged."""


def main(seeds: int, root: Path, steps: int) -> None:
    """Run what is missing and write the table."""
    first, *others = VARIANTS
    write_rows(root / PROMPT_FILE, [row for _, row in islice(read_rows(resolve("embedded:train"), "train"), PROMPTS)])
    folders = {(first, seed): train(root, first, seed, steps) for seed in range(seeds)}
    budgets = [generated(folders[first, seed])[-1][1] for seed in range(seeds)]
    folders |= {(name, seed): train(root, name, seed, steps + steps // 2, budgets[seed]) for name in others for seed in range(seeds)}
    accuracy = {name: [score_within(folders[name, seed], budgets[seed])[1] for seed in range(seeds)] for name in VARIANTS}
    write(accuracy, budgets, steps, {name: [process(folders[name, seed]) for seed in range(seeds)] for name in others})


def train(root: Path, name: str, seed: int, steps: int, budget: float = math.inf) -> Path:
    """The finished run's folder."""
    folder = root / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    command = [sys.executable, "-m", "polaris.train", str(CONFIG), f"--root={root}", f"--name={folder.name}", f"--seed={seed}"]
    command += [f"--trainer.steps={steps}", f"--data.path={root / PROMPT_FILE}", *COMMON, *VARIANTS[name]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    tokens = generated(folder)[-1][1]
    print(f"{folder.name}: {tokens:,.0f} tokens", flush=True)
    if budget != math.inf and tokens < budget:
        raise SystemExit(f"{folder} ends below the budget of {budget:,.0f} tokens; give it more steps in {Path(__file__).name}")
    return folder


def process(folder: Path) -> dict[str, float]:
    """Means over the last steps of what the process reward has measured."""
    records = [record for record in read_records(folder / "metrics.jsonl") if "reward/process_mean" in record][-LAST:]
    keys = [key for key in records[0] if key.startswith("reward/process_")]
    return {key: sum(record[key] for record in records) / len(records) for key in keys}


def write(accuracy: dict[str, list[float]], budgets: list[float], steps: int, measured: dict[str, list[dict[str, float]]]) -> None:
    """The result file."""
    where = f"{date.today().isoformat()}, {platform.machine()}, {cpu_count()} cores; torch {version('torch')}"
    command = f"`python benchmarks/recipe/core.py {len(budgets)} ROOT {steps}`"
    how = f"{command}; {PROMPTS} prompts; tokens: {', '.join(f'{budget:,.0f}' for budget in budgets)}"
    text = (
        f"# CORE beside the outcome alone, {where}\n\nHeld-out avg@4 of the embedded task at the same number of generated tokens. {how}\n\n"
    )
    # With one seed there is no interval.
    text += table(accuracy).replace("whole recipe", "outcome alone") if len(budgets) > 1 else f"One seed, no interval: {accuracy}\n"
    text += f"\nOver the last {LAST} steps, by seed:\n\n| variant | metric | values |\n| --- | --- | --- |\n"
    for name, found in measured.items():
        text += "".join(f"| {name} | `{key}` | {', '.join(f'{one[key]:.3f}' for one in found)} |\n" for key in found[0])
    (RESULTS / f"core_cpu-{cpu_count()}-cores_{date.today().isoformat()}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 3, Path(given[1]) if given[1:] else Path("runs/core"), int(given[2]) if given[2:] else STEPS)
