"""What the card does at best, and for how long: products and copies held for two seconds, and its clocks while they run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.figures import Call, Figure
from benchmarks.gpu.journal import Line
from benchmarks.kernels.contest import held_seconds
from benchmarks.kernels.peers import Unavailable

HELD_S = 2.0
QUERY = {"SM MHz": "clocks.sm", "memory MHz": "clocks.mem", "W": "power.draw", "C": "temperature.gpu"}
SETTINGS = {"most SM MHz": "clocks.max.sm", "W limit": "power.limit", "GiB": "memory.total"}
HEAD = (40_960, 2560, 151_936)
"""Rows, hidden size and vocabulary of a step of Qwen3-4B."""


def figures(call: Call) -> Iterator[Figure]:
    """The most valuable first: the head's product is the bound of `linear_logprob`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, size, vocabulary = (256, 64, 1024) if call.small else HEAD
    square, held = (256, 0.2) if call.small else (8192, HELD_S)
    slab, chunk = (128, 64) if call.small else (8192, 4096)
    copied = 2**22 if call.small else 2**32

    def figure(name: str, prepare: Callable[[], tuple[Callable[[], object], float]], unit: str) -> Figure:
        return Figure(name=name, seconds=12, run=lambda: [Line(name=name, values=sustained(*prepare(), unit, device, held))])

    yield Figure(name="idle", seconds=5, run=lambda: [Line(name="idle", values=state(QUERY | SETTINGS))])
    yield figure(f"forward product {rows}x{size}x{vocabulary}", lambda: plain(device, rows, size, vocabulary), "TFLOP/s")
    yield figure(f"product {square}x{square}x{square}", lambda: plain(device, square, square, square), "TFLOP/s")
    for gradient, *shape in (("hidden", chunk, vocabulary, size), ("weight", slab, rows, size), ("weight", vocabulary, chunk, size)):
        name = f"{gradient} gradient {'x'.join(map(str, shape))}, summed in float32"
        yield figure(name, partial(summed, device, *shape), "TFLOP/s")
    yield figure(f"copy {copied >> 20} MiB on the device", lambda: copy(device, device, copied), "GB/s")
    if device.type == "cuda":
        yield figure(f"copy {copied >> 20} MiB to the device", lambda: copy(torch.device("cpu"), device, copied), "GB/s")
        yield figure(f"copy {copied >> 20} MiB from the device", lambda: copy(device, torch.device("cpu"), copied), "GB/s")
    yield Figure(name="after", seconds=5, run=lambda: [Line(name="after", values=state(QUERY))])


def plain(device: torch.device, rows: int, inner: int, columns: int) -> tuple[Callable[[], object], float]:
    """left [rows, inner] @ right [columns, inner]^T in bfloat16, and its TFLOP."""
    left, right = random(device, rows, inner), random(device, columns, inner)
    out = left.new_empty(rows, columns)
    return lambda: torch.mm(left, right.T, out=out), 2 * rows * inner * columns / 1e12


def summed(device: torch.device, rows: int, inner: int, columns: int) -> tuple[Callable[[], object], float]:
    """total [rows, columns] += left [rows, inner] @ right [inner, columns], as the backward sums gradients."""
    from polaris_kernels.products import accumulate, product_operand

    left, right = product_operand(random(device, rows, inner)), product_operand(random(device, inner, columns))
    total = torch.zeros(rows, columns, device=device)
    return lambda: accumulate(total, left, right), 2 * rows * inner * columns / 1e12


def copy(source: torch.device, target: torch.device, length: int) -> tuple[Callable[[], object], float]:
    """A copy and its GB: read and written where both lie on one device, else those that cross."""
    both = source == target
    pinned = not both
    left, right = (torch.empty(length, dtype=torch.uint8, device=d, pin_memory=pinned and d.type == "cpu") for d in (source, target))
    left.random_()
    return lambda: right.copy_(left, non_blocking=True), (1 + both) * length / 1e9


def random(device: torch.device, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, device=device, dtype=torch.bfloat16)


def sustained(run: Callable[[], object], amount: float, unit: str, device: torch.device, seconds: float) -> dict[str, float]:
    """Rates of `amount` per run, at the end of a run of `seconds` and at its beginning, and the card's state in between."""
    with asked(QUERY, delay=seconds / 2) as answer:
        first, last = held_seconds(run, device, seconds)
    return {unit: amount / last, f"{unit} at first": amount / first} | answer


@contextmanager
def asked(query: dict[str, str], delay: float) -> Iterator[dict[str, float]]:
    """Ask for the card's state `delay` seconds from now, beside what runs; the answer is there at the end. It changes no setting."""
    command = f"sleep {delay} && exec nvidia-smi --query-gpu={','.join(query.values())} --format=csv,noheader,nounits"
    answer: dict[str, float] = {}
    if shutil.which("nvidia-smi") is None:
        yield answer
        return
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True) as asking:
        yield answer
        told = asking.communicate()[0].split(",")
    answer |= {fact: float(word) for fact, word in zip(query, told, strict=False) if word.strip().replace(".", "").isdigit()}


def state(query: dict[str, str]) -> dict[str, float]:
    """The card's state now."""
    with asked(query, delay=0) as answer:
        pass
    if not answer:
        raise Unavailable("there is no nvidia-smi")
    return answer
