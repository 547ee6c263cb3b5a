"""The recipe against itself with one element switched off, and with all, on the embedded model, at the same budget of generated tokens.

    python benchmarks/recipe/ablation.py [SEEDS] [ROOT]

The rules are those of `compare.py`. The same weights are evaluated once more at COOL, a temperature at which the base is at its best.
Runs are below ROOT (default: runs/ablation). Results go to benchmarks/results/.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare import ALONE, CONFIGS, REPOSITORY, Comparison, Runs, Scores, polaris, score_within, write, write_prompts

PROMPTS, STEPS, COOL = 1024, (30, 20), 0.4
KEEP = ["--checkpoint.every=5", "--checkpoint.keep=100"]
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
    """Run what is missing, two runs at a time, and write the tables."""
    options = [write_prompts(root, PROMPTS), *ALONE, *KEEP]
    comparison = Comparison(
        config=CONFIGS / "embedded-recipe.toml", options=options, variants=VARIANTS, steps=STEPS, root=root, seeds=seeds
    )
    runs, budgets = comparison.run()
    scores = scores_at_two_temperatures(comparison, runs, budgets)
    write("One element of the recipe switched off", Path(__file__).stem, f"{seeds}", scores, budgets)


def scores_at_two_temperatures(comparison: Comparison, runs: Runs, budgets: Sequence[float]) -> dict[str, Scores]:
    """By heading: the scores within the budgets, and those of the same weights at COOL."""
    with ThreadPoolExecutor(max_workers=comparison.parallel) as pool:
        again = dict(zip(runs, pool.map(lambda key: score_again(runs[key], budgets[key[1]]), runs), strict=True))
    cool = {name: [again[name, seed] for seed in range(comparison.seeds)] for name in comparison.variants}
    return {"Evaluated at temperature 1": comparison.scores(runs, budgets), f"Evaluated at temperature {COOL:g}": cool}


def score_again(folder: Path, budget: float) -> float:
    """Held-out avg@4 at the temperature COOL of the checkpoint that `score_within` takes."""
    step = score_within(folder, budget)[0]
    exported, output = folder / "export" / f"step-{step:06d}", folder / f"cool-{step}"
    if not exported.is_dir():
        polaris("export", str(folder), f"--step={step}")
    polaris("eval", f"--model={exported}", f"--output={output}", *AGAIN)
    (suite,) = json.loads((output / "result.json").read_text())["results"]["1"].values()
    return float(suite["avg"]["mean"])


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "ablation"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place)
