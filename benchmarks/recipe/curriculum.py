"""Target-difficulty sampling against dropping easy prompts and against neither, on the embedded model, at the same generated tokens.

    python benchmarks/recipe/curriculum.py [SEEDS] [ROOT] [STEPS]

The rules are those of `compare.py`. The first variant makes 2 x STEPS steps (default 25). The temperature is 1 and the response limit the
same throughout, so that only the choice of prompts differs. A target falls over just these steps, also where a difficulty pass has used
up a part of the budget, which is then reached before the end. Runs are below ROOT (default: runs/curriculum). Results go to
benchmarks/results/.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ablation import FIXED, PROMPTS
from compare import ALONE, CONFIGS, REPOSITORY, Comparison, write, write_prompts

SAME = [*FIXED, "--stage.0.max_response_tokens=192", "--stage.0.drop_above=1.0"]
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
    comparison = Comparison(
        config=CONFIGS / "embedded-recipe.toml",
        options=[write_prompts(root, PROMPTS), *ALONE],
        variants=VARIANTS,
        steps=(steps, steps),
        root=root,
        seeds=seeds,
        of_fixed_length=lambda name: "target" in name,
    )
    runs, budgets = comparison.run()
    scores = {"Evaluated at temperature 1": comparison.scores(runs, budgets)}
    write("How prompts are chosen", Path(__file__).stem, f"{seeds} ROOT {steps}", scores, budgets)


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "runs" / "curriculum"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, place, int(sys.argv[3]) if len(sys.argv) > 3 else 25)
