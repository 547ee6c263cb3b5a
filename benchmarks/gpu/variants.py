"""The head's kernels in ten minutes: is what they compute right at real sizes, which of their settings is fastest, what the operations
come to beside their peers. Per cent of a product and a copy that were held in the same call are the figures that count."""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import ceilings
from benchmarks.gpu.exact import check, if_right
from benchmarks.gpu.figures import Call, Figure, verdict
from benchmarks.gpu.journal import Line
from benchmarks.gpu.kernels import SLOW, alone, bound_of, together
from benchmarks.gpu.profile import PROFILED, profile
from benchmarks.gpu.program import ROOT, end_all
from benchmarks.kernels.contest import Choice, Run, Work, free, held_seconds, timed
from benchmarks.kernels.contests import contests
from benchmarks.kernels.peers import Unavailable

_ROUNDS = 8


def figures(call: Call) -> Iterator[Figure]:
    """What is needed to judge first, then the verdicts, the variants, and the operations as wholes."""
    device, kernels = torch.device("cuda" if torch.cuda.is_available() else "cpu"), _kernels()
    yield Figure(name="bound", seconds=15, run=partial(tell_bound, call, device))
    yield Figure(name="compile", seconds=90, run=partial(compile_variants, call))
    heads = ("tiny",) if call.small else ("qwen3-4b", "qwen3-8b")
    for head in heads:
        yield Figure(name=f"check {head}", seconds=60, run=partial(check, head, call, device))
    for name in kernels.KERNELS:
        yield Figure(name=name, seconds=40, run=partial(if_right, call, heads, partial(compare, name, call, device)))
    for name, seconds, prepare in _choices(call, device):
        yield Figure(name=name, seconds=seconds, run=partial(if_right, call, heads, partial(race, name, prepare, call, device)))
    for name in PROFILED:
        yield Figure(name=f"profile of {name}", seconds=60, run=partial(profile, name, call))
    wholes = [c for shapes in contests("tiny" if call.small else "gpu") for c in shapes if c.parameters.get("head") in (None, *heads[:1])]
    for contest in wholes:
        run = partial(alone, contest, call, device)
        yield Figure(name=f"{contest.name}, ours", seconds=20, run=partial(if_right, call, heads, run))
    for contest in wholes:
        seconds, run = 80 if contest.operation in SLOW else 20, partial(together, contest, call, device)
        yield Figure(name=contest.name, seconds=seconds, run=partial(if_right, call, heads, run))


def _kernels() -> Any:
    """benchmarks.kernels.variants; without a GPU its kernels run in Triton's interpreter, which is asked for when Triton is imported."""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
        importlib.import_module("triton.experimental.gluon")
    module = importlib.import_module("benchmarks.kernels.variants")
    if not torch.cuda.is_available():
        module.nested()
        del os.environ["TRITON_INTERPRET"]  # programs that are started must not inherit it
    return module


def _choices(call: Call, device: torch.device) -> Iterator[tuple[str, float, Callable[[], Choice]]]:
    """Settings of whole operations: name, seconds that they take at most, and what prepares them."""
    settings = _kernels().settings
    yield "rows of a chunk", 40, partial(settings.chunks, device, call.small)
    for direction in ("forward", "backward"):
        yield f"block of the logits' {direction}", 30, partial(settings.blocks, direction, device, call.small)


def tell_bound(call: Call, device: torch.device) -> Iterator[Line]:
    """The head's own product and a copy, each held for two seconds."""
    rows, size, vocabulary = (256, 64, 1024) if call.small else ceilings.HEAD
    held, length = (0.0, 2**20) if call.small else (ceilings.HELD_S, 2**32)
    rates = {}
    for unit, prepare in (
        ("TFLOP/s", partial(ceilings.plain, device, rows, size, vocabulary)),
        ("GB/s", partial(ceilings.copy, device, device, length)),
    ):
        run, amount = prepare()
        rates[unit] = amount / held_seconds(run, device, held)[1]
        del run
        free()
    yield Line(name="bound", values=rates)


def compile_variants(call: Call) -> Iterator[Line]:
    """All variants into Triton's cache, on all cores at once; where there is no GPU, a share of them for sm_90."""
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    shares, started = (36, 1) if call.small else (cores := os.cpu_count() or 1, cores)
    command = [sys.executable, "-m", "benchmarks.kernels.variants", "compile", str(10 * major + minor)]
    workers = [
        subprocess.Popen([*command, str(share), str(shares)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for share in range(started)
    ]
    failed = 0
    try:
        for worker in workers:
            words, _ = worker.communicate(timeout=max(1.0, call.left()))
            print(words, end="", flush=True)
            failed += worker.returncode
    finally:
        for worker in workers:
            end_all(worker)
    yield Line(name="compile", values={"processes": started, "variants that did not compile": failed})


def compare(name: str, call: Call, device: torch.device) -> Iterator[Line]:
    """The kernel in all its variants, in turns; one that gives other bits is not timed."""
    module = _kernels()
    hidden, head, targets, committed = module.inputs(device, 40 if call.small else module.ROWS[name])
    kernel, variants = module.prepare(name, hidden, head, targets, committed), module.variants(committed)
    expected = kernel.run(variants[0]).clone()
    choice = Choice(
        runs={variant.name: partial(kernel.run, variant) for variant in variants},
        wrong=lambda result: "" if torch.equal(result, expected) else "other bits than the committed tiles'",
        work=Work(flops=kernel.flops),
    )
    yield from race(name, lambda: choice, call, device)


def race(name: str, prepare: Callable[[], Choice], call: Call, device: torch.device) -> Iterator[Line]:
    """All settings of a choice, in turns; one that does not fit or is wrong is a line, and the others go on.

    Raises:
        Unavailable: the committed one is wrong.
    """
    choice = prepare()
    first, *others = choice.runs
    running: dict[str, Run] = {}
    for setting in (first, *(others[-1:] if call.small else others)):
        try:
            if reason := choice.wrong(choice.runs[setting]()):
                raise ValueError(reason)
            running[setting] = choice.runs[setting]
        except Exception as error:
            status, reason = verdict(error)
            yield Line(name=f"{name}, {setting}", status="not run" if "OutOfResources" in reason else status, reason=reason)
            if "CUDA error" in reason:
                raise
            if setting == first:
                raise Unavailable(f"{setting}, as committed: {reason}") from error
    held_seconds(running[first], device, 0.0 if call.small else 2.0)
    turns: dict[str, list[float]] = {setting: [] for setting in running}
    for _ in range(1 if call.small else _ROUNDS):
        for setting, run in running.items():
            turns[setting].append(timed(run, device))
    bound, committed_s = bound_of(call), statistics.median(turns[first])
    for setting, seconds in turns.items():
        median = statistics.median(seconds)
        values = {
            "ms": 1000 * median,
            "min ms": 1000 * min(seconds),
            "max ms": 1000 * max(seconds),
            "by the committed": median / committed_s,
        }
        values |= choice.work.facts(median, bound)
        yield Line(name=f"{name}, {setting}", values=values, row={"test": name, "case": setting, "parameters": {"name": setting}})
