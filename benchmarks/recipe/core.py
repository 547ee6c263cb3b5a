"""The process reward CORE beside the outcome alone, on the embedded model, at the same budget of generated tokens.

    python benchmarks/recipe/core.py [SEEDS] [ROOT] [STEPS]

Both train by plain GRPO (configs/quickstart.toml) with rescue; CORE adds `reward.process`, by which the running totals of a response
that is wrong earn up to a half. The rules are those of `compare.py`. Runs are below ROOT (default: runs/core). Results go to
benchmarks/results/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from compare import ALONE, CONFIGS, REPOSITORY, Comparison, write, write_prompts

from polaris.observe.metrics import read_records

PROMPTS, STEPS = 512, 60
"""Prompts few enough for four epochs, so that sets grow: a prompt that comes once meets only the results of its own group."""
CORE = ["--reward.process.most=0.5", r"--reward.process.marker=[=:](-?\d+)"]
VARIANTS = {"outcome alone": [], "CORE": CORE, "CORE, frozen": [*CORE, "--reward.process.denominator=frozen"]}
LAST = 10
"""Steps at the end over which the metrics of the process reward are averaged."""


def main(seeds: int, root: Path, steps: int) -> None:
    """Run what is missing, two runs at a time, and write the tables."""
    options = [write_prompts(root, PROMPTS), *ALONE, "--algorithm.rescue=1"]
    comparison = Comparison(config=CONFIGS / "quickstart.toml", options=options, variants=VARIANTS, steps=(steps,), root=root, seeds=seeds)
    runs, budgets = comparison.run()
    scores = {"Evaluated at temperature 1": comparison.scores(runs, budgets)}
    measured = {name: [process(runs[name, seed]) for seed in range(seeds)] for name in VARIANTS if "CORE" in name}
    more = f"\n{PROMPTS} prompts. Over the last {LAST} steps, by seed:\n\n| variant | metric | values |\n| --- | --- | --- |\n"
    for name, found in measured.items():
        more += "".join(f"| {name} | `{key}` | {', '.join(f'{one[key]:.3f}' for one in found)} |\n" for key in found[0])
    write("CORE beside the outcome alone", Path(__file__).stem, f"{seeds} ROOT {steps}", scores, budgets, more)


def process(folder: Path) -> dict[str, float]:
    """Means over the last steps of what the process reward has measured."""
    records = [record for record in read_records(folder / "metrics.jsonl") if "reward/process_mean" in record][-LAST:]
    keys = [key for key in records[0] if key.startswith("reward/process_")]
    return {key: sum(record[key] for record in records) / len(records) for key in keys}


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "core"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place, int(sys.argv[3]) if len(sys.argv) > 3 else STEPS)
