"""What the temperature probe saves by leaving out responses that cannot change its choice, and what that does to the choice.

    python benchmarks/recipe/probe_savings.py [SEED] [PROBES]

The curves of `probe_power.py`, so many simulated probes each (default 100) from the seed on (default 0): all responses of a probe, and
those of them that `next_draw` asks for. Writes `benchmarks/results/probe-savings_DATE.md`. Takes two minutes of one core.
"""

from __future__ import annotations

import platform
import sys
from datetime import date
from importlib.metadata import version

import numpy as np
from probe_power import CURVES, MORE, ROOT, percent, table
from test_probe_power import in_rounds, place, responses

from polaris.algorithm.zones import above_zero

SIZES = [(0.5, 60, 8, 1.2)]


def main() -> None:
    seed, times = (int(sys.argv[place]) if len(sys.argv) > place else default for place, default in ((1, 0), (2, 100)))
    lines = (
        f"# Responses that a temperature probe leaves out, simulated, {date.today().isoformat()}, {platform.machine()} CPU",
        f"Python {platform.python_version()}, numpy {version('numpy')}. "
        f"Command: `python benchmarks/recipe/probe_savings.py {seed} {times}`.",
        f"{times} probes each; curves and prompts as in `probe_power.py`, a + b = 1.2. The head: best accuracy, prompts x samples. "
        "Cells: percent of probes whose chosen accuracy is within 3 % of the best, and the mean place of the choice on the grid (1 is the "
        "coolest), from all responses; the same from those that the probe asks for; the share of responses that this saves.",
        table(savings(seed, times)),
    )
    text = "\n\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / f"probe-savings_{date.today().isoformat()}.md").write_text(text)
    print(text)


def savings(seed: int, times: int) -> list[tuple[str, ...]]:
    """Rows of the table: every curve at every size, then their mean."""
    rows, totals = [], []
    for name, curve in (CURVES | MORE).items():
        found = [compare(seed, times, curve, size) for size in SIZES]
        rows.append((name, *(f"{a:.0f} at {at:.1f}; {b:.0f} at {bt:.1f}; {saved:.0%}" for a, at, b, bt, saved in found)))
        totals.append(found)
    mean = np.mean(totals, axis=0)
    head = ("curve", *(f"{accuracy:g}, {prompts} x {samples}" for accuracy, prompts, samples, _ in SIZES))
    return [head, *rows, ("mean", *(f"{a:.1f}; {b:.1f}; {saved:.0%}" for a, _, b, _, saved in mean))]


def compare(
    seed: int, times: int, curve: tuple[float, ...], size: tuple[float, int, int, float]
) -> tuple[float, float, float, float, float]:
    """Percent within 3 % and mean place, with all responses and with some; the share that is saved. Refused probes do not count."""
    whole, parts, drawn = [], [], []
    for solved in responses(curve, *size, times, seed):
        everything = solved.mean(axis=2)
        if above_zero(everything[everything.mean(axis=1).argmax()]):
            accuracy, samples = in_rounds(solved)
            whole.append(place(everything))
            parts.append(place(accuracy, samples))
            drawn.append(samples.sum() / (len(curve) * solved.shape[2]))
    places = (1 + float(np.mean(found)) for found in (whole, parts))
    kept = (float(percent(curve, found)) for found in (whole, parts))
    (a, b), (at, bt) = kept, places
    return a, at, b, bt, 1 - float(np.mean(drawn))


if __name__ == "__main__":
    main()
