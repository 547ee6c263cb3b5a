"""Part 4: a step of 1,024 responses of 40,000 characters, with and without hostile ones, on two grading processes."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from golds import texts
from mutators import CORRECT, WRONG, Mutator
from report import Part, code, listing, table

from polaris.reward.pool import GraderPool
from polaris.types import GroundTruth, Verdict

STEP = 1024
CHARS = 40_000
WORKERS = 2
TIMEOUT_S = 5.0
SEED = 0
HOSTILE = {
    "tower of exponents": "9^{9^{9^{9^{9}}}}",
    "tower in a function": "\\sin(2^{e^{25}})",
    "factorials": "((((9!)!)!)!)!",
    "large function value": "\\Gamma(99999999)+\\pi",
    "long sum": "\\sum_{k=1}^{9999}\\sin(k^k)",
    "nested braces": "{" * 18_000 + "1" + "}" * 18_000,
    "nested roots": "\\sqrt{" * 5_000 + "2" + "}" * 5_000,
    "box of 1 MB": "1+" * 500_000 + "1",
    "number of 1 MB": "7" * 1_000_000,
    "code": "__import__('os').system('touch hostile')",
}
"""Ten answers, 1 % of the step."""
HOSTILE_GOLD = "\\pi+\\sum_{k=1}^{9}\\frac{1}{k}"
CORRECT_FORMS, WRONG_FORMS = ("wrapping", "equal_number", "commuted_sum", "equal_expression"), ("next_number", "other_expression")
Item = tuple[str, GroundTruth]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Memory in MiB: `parent` is its peak within the call, `parent_before` what it held at the start."""

    verdicts: list[Verdict]
    seconds: float
    killed: int
    alive: int
    parent_before: float
    parent: float
    worker: float


def measure() -> Part:
    draw = random.Random(SEED)
    honest, expected = _honest(draw, STEP)
    places = sorted(draw.sample(range(STEP), len(HOSTILE)))
    mixed = list(honest)
    for place, answer in zip(places, HOSTILE.values(), strict=True):
        mixed[place] = (_response(draw, answer), HOSTILE_GOLD)
    steps = {"honest": (honest, _step(honest), []), "1 % hostile": (mixed, _step(mixed), places)}
    rows = [_row(name, step, hostile, expected) for name, (_, step, hostile) in steps.items()]
    problems = [line for name, (items, step, hostile) in steps.items() for line in _wrong(name, items, step, hostile, expected)]
    verdicts = steps["1 % hostile"][1].verdicts
    kinds = [(kind, verdicts[place].kind, verdicts[place].reason) for kind, place in zip(HOSTILE, places, strict=True)]
    text = f"{STEP} responses of {CHARS:,} characters, {WORKERS} workers, {TIMEOUT_S:g} s for an answer, seed {SEED}.\n\n"
    text += table(list(rows[0]), [list(row.values()) for row in rows]) + "\n\n" + table(("hostile answer", "verdict", "reason"), kinds)
    return Part(
        title="A step with hostile answers", text=text + listing("Wrong verdicts", problems), data={"steps": rows, "hostile": kinds}
    )


def _row(name: str, step: Step, hostile: list[int], expected: list[bool]) -> dict[str, Any]:
    pairs = [(v, true) for place, (v, true) in enumerate(zip(step.verdicts, expected, strict=True)) if place not in hostile]
    return {
        "step": name,
        "verdicts": len(step.verdicts),
        "seconds": round(step.seconds, 2),
        "honest ones right": f"{sum((v.kind == 'correct') == true for v, true in pairs)} of {len(pairs)}",
        "hostile ones called correct": sum(step.verdicts[place].kind == "correct" for place in hostile),
        "killed": step.killed,
        "workers alive after": f"{step.alive} of {WORKERS}",
        "peak of a worker, MiB": round(step.worker),
        "parent before, MiB": round(step.parent_before),
        "peak of the parent, MiB": round(step.parent),
    }


def _wrong(name: str, items: list[Item], step: Step, hostile: list[int], expected: list[bool]) -> list[str]:
    return [
        f"{name}: {code(verdict.answer or '')} is {verdict.kind} {verdict.reason} for {code(str(truth))}"
        for place, ((_, truth), verdict, true) in enumerate(zip(items, step.verdicts, expected, strict=True))
        if place not in hostile and (verdict.kind == "correct") != true
    ]


def _step(items: list[Item]) -> Step:
    """One call of `grade`; afterwards every worker must answer."""
    with GraderPool(WORKERS, TIMEOUT_S, require_thinking=True) as pool, _Watch() as watch:
        _alive(pool)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        before, start = _mib("self", "VmRSS"), time.perf_counter()
        verdicts = pool.grade(items)
        seconds, peak = time.perf_counter() - start, _mib("self", "VmHWM")
        return Step(
            verdicts=verdicts,
            seconds=seconds,
            killed=pool.num_killed,
            alive=_alive(pool),
            parent_before=before,
            parent=peak,
            worker=watch.peak,
        )


def _alive(pool: GraderPool) -> int:
    """How many workers live, after more answers that need one than there are workers."""
    verdicts = pool.grade([(f"</think> \\boxed{{{i}+x}}", f"x+{i}") for i in range(4 * WORKERS)])
    assert all(verdict.kind == "correct" for verdict in verdicts)
    return len(_children())


def _honest(draw: random.Random, count: int) -> tuple[list[Item], list[bool]]:
    """Real gold answers in other forms, every second one wrong."""
    golds, items, expected = texts(), [], []
    while len(items) < count:
        gold, true = draw.choice(golds), len(items) % 2 == 0
        forms: list[Mutator] = [CORRECT[name] for name in CORRECT_FORMS] if true else [WRONG[name] for name in WRONG_FORMS]
        answers = [answer for form in forms if (answer := form(draw, gold)) is not None]
        if answers:
            items.append((_response(draw, draw.choice(answers)), gold))
            expected.append(true)
    return items, expected


def _response(draw: random.Random, answer: str) -> str:
    """Thinking with boxes and formulas in it, up to the length, then the answer."""
    thought = (
        f"Try $x={draw.randint(1, 999)}$: \\frac{{x}}{{2}} is not \\boxed{{{draw.randint(1, 999)}}}, so \\left(x^{{2}}\\right) grows. "
    )
    final = f"</think>\n\nThe answer is $\\boxed{{{answer}}}$."
    room = max(0, CHARS - len("<think>") - len(final))
    return f"<think>{(thought * (room // len(thought) + 1))[:room]}{final}"


class _Watch:
    """Largest resident size of any child process, looked at 50 times a second."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for child in _children():
                with contextlib.suppress(OSError, StopIteration):  # it ended meanwhile
                    self.peak = max(self.peak, _mib(child, "VmHWM"))


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def _mib(process: int | str, name: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(measure().text)
