"""How often simulated temperature probes choose an accuracy within 3 % of the best.

    python benchmarks/recipe/probe_power.py

The curves and prompts of `tests/algorithm/test_probe_power.py`, 100 probes each. Writes `benchmarks/results/probe-power_DATE.md`.
"""

from __future__ import annotations

import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "algorithm"))

from test_probe_power import CURVES, FLAT, GRID, PROBES, SIMULATIONS, chosen  # noqa: E402

HEAD = ("curve", "true accuracy over temperature", "best", "prompts x samples", "a + b of Beta", "within 3 %", "hottest", "mean place")


def main() -> None:
    rows = [HEAD, ("---",) * len(HEAD), *(row(*simulation) for simulation in SIMULATIONS), row("flat", 0.5, 200, 8, 1.2)]
    lines = (
        f"# Simulated temperature probes, {date.today().isoformat()}, {platform.machine()} CPU",
        f"Python {platform.python_version()}, numpy {version('numpy')}. Command: `python benchmarks/recipe/probe_power.py`.",
        f"{PROBES} probes each. Pass rates of prompts are Beta(a, b), the best accuracy their mean: a + b = 1.2 is a set with most prompts "
        "always or never solved, 1000 one of equal prompts. Place is that on the grid, from 1 at the coolest; hotter is more diverse.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
    )
    text = "\n\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / f"probe-power_{date.today().isoformat()}.md").write_text(text)
    print(text)


def row(name: str, accuracy: float, prompts: int, samples: int, alike: float) -> tuple[str, ...]:
    curve = CURVES[name]
    found = chosen(curve, accuracy, prompts, samples, alike)
    within = sum(curve[index] >= 0.97 * max(curve) for index in found)
    shape = ", ".join(f"{value:.3g}" for value in curve) if curve != FLAT else "1 at all"
    place = f"{1 + sum(found) / len(found):.1f} of {min(len(curve), len(GRID))}"
    counts = (f"{prompts} x {samples}", f"{alike:g}", str(within), str(found.count(len(curve) - 1)), place)
    return (name, shape, f"{accuracy:g}", *counts)


if __name__ == "__main__":
    main()
