"""Learning curves at several stalenesses, and with responses that are carried over, at the same number of generated tokens.

    python benchmarks/rollout/learning.py [SEEDS] [ROOT] [STEPS]

The model and task of the quickstart by vLLM on two ranks, one thread each, as in `two_engines.py`, with natural lengths. The first variant
makes STEPS steps (default 60) and sets the budget of a seed. Runs are below ROOT (default: runs/learning).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from two_engines import VARIANTS, natural, on_two_ranks

sys.path.insert(0, str(Path(__file__).parents[1] / "recipe"))

from compare import REPOSITORY, RESULTS, curve, machine, student_interval, write

CURVES = {name: options for name, options in VARIANTS.items() if name != "oversample 2"}


def main(seeds: int, root: Path, steps: int) -> None:
    """Run what is missing, one run at a time, and write table and picture."""
    comparison = on_two_ranks(root, natural(), CURVES, steps, seeds, {})
    runs, budgets = comparison.run()
    curves = {name: [curve(runs[name, seed]) for seed in range(seeds)] for name in CURVES}
    places = np.linspace(0, min(budgets), 13)
    table = "\n## On the way\n\n" + on_the_way(curves, places)
    write("Staleness and what is carried over", Path(__file__).stem, f"{seeds} ROOT {steps}",
          {"natural lengths": comparison.scores(runs, budgets)}, budgets, table, folder="rollout", curves=curves)  # fmt: skip
    picture(curves, places)


def at(points: Sequence[tuple[int, float, float]], place: float) -> float:
    """Accuracy after so many tokens, between two evaluations by a straight line."""
    _, tokens, accuracy = zip(*points, strict=True)
    return float(np.interp(place, tokens, accuracy))


def on_the_way(curves: Mapping[str, Sequence[Sequence[tuple[int, float, float]]]], places: np.ndarray) -> str:
    """Markdown: mean accuracy, with its interval over seeds, at every second place."""
    chosen = places[2::2]
    rows = [["variant", *(f"{place / 1000:,.0f}K tokens" for place in chosen)], ["---"] * (len(chosen) + 1)]
    for name, of_seeds in curves.items():
        cells = [np.array([at(points, place) for points in of_seeds]) for place in chosen]
        rows.append([name, *(f"{cell.mean():.1%}{_margin(cell)}" for cell in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _margin(values: np.ndarray) -> str:
    return f" ± {student_interval(values)[1] - values.mean():.1%}" if len(values) > 1 else ""


def picture(curves: Mapping[str, Sequence[Sequence[tuple[int, float, float]]]], places: np.ndarray) -> None:
    """The means, with intervals over seeds."""
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(8, 5))
    for name, of_seeds in curves.items():
        values = np.array([[at(points, place) for place in places] for points in of_seeds])
        (line,) = axes.plot(places, values.mean(0), label=name)
        if len(values) > 1:
            low, high = zip(*(student_interval(column) for column in values.T), strict=True)
            axes.fill_between(places, low, high, alpha=0.1, color=line.get_color())
    axes.set(xlabel="generated tokens", ylabel="held-out avg@4", title="Staleness and what is carried over, 95 % intervals over seeds")
    axes.legend()
    pyplot.savefig(RESULTS / f"{Path(__file__).stem}_{machine()[0]}_{date.today()}.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *[""] * 3]
    main(int(arguments[0] or 3), Path(arguments[1] or REPOSITORY / "runs" / "learning"), int(arguments[2] or 60))
