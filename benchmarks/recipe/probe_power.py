"""How often simulated temperature probes choose an accuracy within 3 % of the best.

    python benchmarks/recipe/probe_power.py [SEED]

Curves and prompts of `tests/algorithm/test_probe_power.py`, 100 probes each from the seed on (default 0, those of the tests), then all
curves at several accuracies and sizes. Writes `benchmarks/results/probe-power_DATE.md`. Takes four minutes on one core.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "algorithm"))

from test_probe_power import CURVES, PROBES, SIMULATIONS, place, probes  # noqa: E402

from polaris.algorithm.zones import above_zero  # noqa: E402

PROBE = ("best accuracy", "prompts x samples", "a + b of Beta", "within 3 %", "hottest", "mean place")
WIDE = [
    *((0.5, *size, 1.2) for size in ((16, 4), (60, 8), (200, 8))),
    *((0.2, *size, 1.2) for size in ((16, 4), (60, 8), (200, 8))),
    (0.05, 60, 8, 1.2),
    (0.9, 60, 8, 1.2),
]
MORE = {
    **{f"a cliff to {low:g} after {safe} of 11": (1,) * safe + (low,) * (11 - safe) for low in (0.9, 0.5) for safe in (1, 4, 7, 10)},
    "a peak of five": (0.8, 0.9, 1, 0.9, 0.8),
    "a peak of three": (0.9, 1, 0.9),
    "rising and falling by 2 %": tuple(1 - 0.02 * abs(k - 5) for k in range(11)),
    "rising and falling by 5 %": tuple(1 - 0.05 * abs(k - 4) for k in range(9)),
}


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    rows = [("curve", *PROBE), *(row(seed, *simulation) for simulation in [*SIMULATIONS, ("flat", 0.5, 200, 8, 1.2)])]
    columns = (
        "curve",
        "true accuracy over temperature",
        *(f"{accuracy:g}, {prompts} x {samples}" for accuracy, prompts, samples, _ in WIDE),
    )
    wide = [columns, *((name, shape(curve), *(cell(seed, curve, *probe) for probe in WIDE)) for name, curve in (CURVES | MORE).items())]
    lines = (
        f"# Simulated temperature probes, {date.today().isoformat()}, {platform.machine()} CPU",
        f"Python {platform.python_version()}, numpy {version('numpy')}. Command: `python benchmarks/recipe/probe_power.py {seed}`.",
        f"{PROBES} probes each. Pass rates of prompts are Beta(a, b), the best accuracy their mean: a + b = 1.2 is a set with most prompts "
        "always or never solved, 1000 one of equal prompts. Place is that on the grid, from 1 at the coolest; hotter is more diverse. "
        "Where the best accuracy cannot be told from 0 a probe is refused and not counted.",
        table(rows),
        "Below: a + b = 1.2; percent of probes within 3 %, and the mean place. In brackets what an oracle reaches that knows the shape of "
        "the curve and not where its best lies, for curves whose coolest temperature is not within 3 %.",
        table(wide),
    )
    text = "\n\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / f"probe-power_{date.today().isoformat()}.md").write_text(text)
    print(text)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rest))


def shape(curve: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in curve) if len(set(curve)) > 1 else "1 at all"


def row(seed: int, name: str, *probe: float) -> tuple[str, ...]:
    accuracy, prompts, samples, alike = probe
    curve, found = CURVES[name], [place(drawn) for drawn in told(seed, CURVES[name], *probe)]
    counts = (f"{accuracy:g}", f"{prompts} x {samples}", f"{alike:g}", percent(curve, found), str(found.count(len(curve) - 1)))
    return (name, *counts, f"{1 + np.mean(found):.1f} of {len(curve)}")


def cell(seed: int, curve: Sequence[float], *probe: float) -> str:
    drawn = told(seed, curve, *probe)
    if not drawn:
        return "refused"
    found = [place(one) for one in drawn]
    text = f"{percent(curve, found)} at {1 + np.mean(found):.1f}"
    return text if curve[0] >= 0.97 * max(curve) else f"{text} ({percent(curve, [oracle(curve, one) for one in drawn])})"


def told(seed: int, curve: Sequence[float], *probe: float) -> list[np.ndarray]:
    """The probes that are not refused."""
    return [one for one in probes(curve, *probe, PROBES, seed) if above_zero(one[one.mean(axis=1).argmax()])]


def percent(curve: Sequence[float], found: Sequence[int]) -> str:
    return f"{100 * np.mean([curve[index] >= 0.97 * max(curve) for index in found]):.0f}"


def oracle(curve: Sequence[float], probe: np.ndarray) -> int:
    """The place of the best if the curve, moved to there, is the nearest to what was measured."""
    means, places, best = probe.mean(axis=1), np.arange(len(curve)), int(np.argmax(curve))
    moved = [np.interp(places - place + best, places, curve) for place in places]
    return int(np.argmin([((means - means @ there / (there @ there) * there) ** 2).sum() for there in moved]))


if __name__ == "__main__":
    main()
