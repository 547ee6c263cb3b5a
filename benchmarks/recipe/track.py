"""`temperature = "track"` against a probe at the start of each stage and against one temperature, at the same budget of generated tokens.

    python benchmarks/recipe/track.py [SEEDS] [ROOT] [STEPS]

The recipe on the embedded model, as in `ablation.py`; the rules are those of `compare.py`. STEPS are those of its two stages (default
30,20). Runs are below ROOT (default: runs/track). Results go to benchmarks/results/, with the way of each run's temperature and diversity.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ablation import FIXED, KEEP, PROMPTS, STEPS, scores_at_two_temperatures
from compare import ALONE, CONFIGS, REPOSITORY, Comparison, generated, write, write_prompts

from polaris.observe.metrics import read_records

VARIANTS = {
    "probe per stage": [],
    "track": ["--stage.0.temperature=track", "--stage.1.temperature=track"],
    "constant 1.0": FIXED,
    "constant 0.6": ["--stage.0.temperature=0.6", "--stage.1.temperature=0.6"],
}


def main(seeds: int, root: Path, steps: tuple[int, int]) -> None:
    """Run what is missing, two runs at a time, and write the tables."""
    options = [write_prompts(root, PROMPTS), *ALONE, *KEEP]
    comparison = Comparison(
        config=CONFIGS / "embedded-recipe.toml", options=options, variants=VARIANTS, steps=steps, root=root, seeds=seeds
    )
    runs, budgets = comparison.run()
    ways = {f"{name}, seed {seed}": way(folder, budgets[seed]) for (name, seed), folder in sorted(runs.items())}
    scores = scores_at_two_temperatures(comparison, runs, budgets)
    command = f"{seeds} ROOT {','.join(map(str, steps))}"
    write('`temperature = "track"` against a probe per stage', Path(__file__).stem, command, scores, budgets, table(ways), ways=ways)


def way(folder: Path, budget: float) -> list[dict[str, float]]:
    """Step, stage, temperature and diversity of the steps within the budget."""
    tokens, keys = dict(generated(folder)), ("step", "stage", "rollout/temperature", "rollout/diversity")
    records = [record for record in read_records(folder / "metrics.jsonl") if "rollout/diversity" in record]
    return [{key: record[key] for key in keys} for record in records if tokens[record["step"]] <= budget]


def table(ways: Mapping[str, list[dict[str, float]]]) -> str:
    """Markdown: of each run its temperatures and, at the start and the end, the mean diversity of five steps."""
    rows = [("run", "steps", "temperatures", "diversity of the first five steps", "of the last five"), ("---",) * 5]
    for name, steps in ways.items():
        values = [step["rollout/diversity"] for step in steps]
        temperatures = [f"{step['rollout/temperature']:g}" for step in steps]
        path = [at for index, at in enumerate(temperatures) if not index or at != temperatures[index - 1]]
        ends = (f"{sum(part) / len(part):.3f}" for part in (values[:5], values[-5:]))
        rows.append((name, str(len(steps)), ", ".join(path), *ends))
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n## Temperature and diversity of training, within the budget\n\n{lines}\n"


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "track"
    first, second = map(int, sys.argv[3].split(",")) if len(sys.argv) > 3 else STEPS
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place, (first, second))
