"""Target-difficulty sampling against dropping easy prompts and against neither, on the embedded model, at the same generated tokens.

    python benchmarks/recipe/curriculum.py [SEEDS] [ROOT] [STEPS]

The rules are those of `ablation.py`, whose runs these are: every sampled token counts, the difficulty pass included. The first variant
makes 2 x STEPS steps (default 25) and sets a seed's budget; the others train on, and are scored by the last evaluation within it. The
temperature is 1 and the response limit the same throughout, so that only the choice of prompts differs. Results go to benchmarks/results/.
"""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

import ablation

SAME = ["--stage.0.temperature=1.0", "--stage.1.temperature=1.0", "--stage.0.max_response_tokens=192", "--stage.0.drop_above=1.0"]
NO_PASS = "--difficulty.samples_per_prompt=0"
TARGET = "--curriculum.target=[0.7, 0.4]"
VARIANTS: Mapping[str, list[str]] = {
    "target difficulty": [*SAME, NO_PASS, TARGET],
    "target difficulty after a pass": [*SAME, TARGET],
    "drop easy": [*SAME, "--stage.0.drop_above=0.9"],
    "neither": [*SAME, NO_PASS],
}


def main(seeds: int, root: Path, steps: int) -> None:
    """Run what is missing, two runs at a time, and write the table."""
    first, *others = VARIANTS
    with ThreadPoolExecutor(max_workers=2) as pool:
        begun = list(pool.map(lambda seed: train(root, first, seed, math.inf, steps), range(seeds)))
        budgets = [ablation.generated(folder)[-1][1] for folder in begun]
        jobs = {(name, seed): pool.submit(train, root, name, seed, budgets[seed], steps) for name in others for seed in range(seeds)}
    folders = {(first, seed): folder for seed, folder in enumerate(begun)} | {key: job.result() for key, job in jobs.items()}
    scores = {name: [ablation.score_within(folders[name, seed], budgets[seed])[1] for seed in range(seeds)] for name in VARIANTS}
    facts = f"{platform.machine()}, 2 shared cores; torch {version('torch')}, transformers {version('transformers')}"
    text = f"# How prompts are chosen, {date.today()}, {facts}\n\nHeld-out avg@4 (256 problems) at the same number of generated tokens "
    text += f"({', '.join(f'{budget:,.0f}' for budget in budgets)}); intervals: 95 %, Student's t over seeds; differences to the first.\n"
    text += f"`python benchmarks/recipe/curriculum.py {seeds} ROOT {steps}`\n\n{ablation.table(scores)}"
    (ablation.RESULTS / f"curriculum_cpu-2-cores_{date.today()}.md").write_text(text)
    print(text)


def train(root: Path, name: str, seed: int, budget: float, steps: int) -> Path:
    """As `ablation.train`, with two stages of `steps` steps. A target falls over just these, also where a pass has used up part of the
    budget, which is then reached before the end."""
    own = math.inf if "target" in name else budget
    return ablation.train(root, name, seed, own, variants=VARIANTS, steps=(steps, steps))


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else ablation.REPOSITORY / "runs" / "curriculum"
    ablation.write_prompts(place)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place, int(sys.argv[3]) if len(sys.argv) > 3 else 25)
