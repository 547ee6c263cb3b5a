"""What a model of an H200's cycles predicts for the operations at T = 40,960 with Qwen3-4B's head. Predictions, not measurements.

    python -m benchmarks.kernels.cycles            # tables

A tile of 128 x 256 numbers takes 1,024 cycles of a multiprocessor's tensor cores per step of 64, whoever computes it. Our kernels add what
a warp executes between the steps of two tiles, read from machine code; cuBLAS adds nothing, but its last wave may be half empty. The
rate of a large product, measured or assumed, is taken for that of busy tensor cores, and gives the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

T, H, V = 40_960, 2560, 151_936
TILE_ROWS, TILE_COLUMNS, STEP, STEP_CYCLES = 128, 256, 64, 1024
"""Of a tile: 2 x 128 x 256 x 64 operations at 4,096 per cycle."""
_WARPS, _ISSUED, _EXPONENTIALS = 2, 0.85, 16
"""Warps of each of a multiprocessor's four schedulers, instructions that a scheduler issues per cycle, exponentials of all per cycle."""
_REFILL = 1300
"""Cycles until the first step of a tile has its operands, where no load crosses the border between tiles."""
_THREADS = 128
"""Of a multiprocessor that issue in a cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """`flops`: operations per second of a large bfloat16 product; `bandwidth`: bytes per second of a copy."""

    flops: float
    bandwidth: float = 4.2e12
    processors: int = 132

    @property
    def clock(self) -> float:
        return self.flops * STEP_CYCLES / (2 * TILE_ROWS * TILE_COLUMNS * STEP * self.processors)

    def seconds(self, work: Work) -> tuple[float, float]:
        """At least and at most: sums in memory behind the products or beside them, waves of products divided or whole."""
        passes = work.passes / self.bandwidth
        least = (work.kernels + work.products) / self.clock + passes
        return least, (work.kernels + work.whole_waves) / self.clock + passes + work.sums / self.bandwidth


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Instructions of a warp per tile outside of the steps: `serial` in every tile, `seldom` where a row's target lies in it.

    `nested`: loops over tiles and steps, not one loop. `stores`: cycles that a tile's plain stores take on top.
    """

    serial: float
    seldom: float = 0.0
    nested: bool = False
    stores: float = 0.0

    def lost(self) -> float:
        """Cycles per tile in which tensor cores wait."""
        tiles = math.ceil(V / TILE_COLUMNS)
        instructions = self.serial + self.seldom * (1 - (1 - 1 / tiles) ** TILE_ROWS)  # targets lie anywhere
        issue = max(instructions * _WARPS / _ISSUED, TILE_ROWS * TILE_COLUMNS / _EXPONENTIALS)
        return issue + self.stores + (_REFILL if self.nested else 0.0)

    def cycles(self, rows: int, columns: int, chip: Chip) -> float:
        """For logits [rows, columns] of H products each."""
        return waves(rows, columns, chip) * (H / STEP * STEP_CYCLES + self.lost())


def waves(rows: int, columns: int, chip: Chip) -> int:
    """Tiles of the multiprocessor that has most of them."""
    return math.ceil(math.ceil(rows / TILE_ROWS) * math.ceil(columns / TILE_COLUMNS) / chip.processors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Cycles of our kernels, and of cuBLAS in divided and in whole waves; bytes of `passes`, and of `sums` that products read and write."""

    kernels: float = 0.0
    products: float = 0.0
    whole_waves: float = 0.0
    passes: float = 0.0
    sums: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def product(rows: int, columns: int, depth: int, chip: Chip) -> Work:
    """[rows, depth] times [depth, columns] by cuBLAS."""
    per_tile = math.ceil(depth / STEP) * STEP_CYCLES
    divided = rows * columns * depth * STEP_CYCLES / (TILE_ROWS * TILE_COLUMNS * STEP * chip.processors)
    return Work(products=divided, whole_waves=waves(rows, columns, chip) * per_tile)


def pieces(total: int, size: int) -> list[int]:
    """Sizes of the pieces of so many, the last of which may be smaller."""
    return [min(size, total - start) for start in range(0, total, size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The kernels at one time, and how the operations cut their work.

    `rows`, `columns` of a slab of `linear_logprob`; `summed`: whether the head's gradient is summed over slabs in float32; `chunk`: rows
    of `linear_policy_loss`; `second_pass`: whether it reads and writes its exponentials again. `from_logits`: instructions per logit of
    `logprob_from_logits`, forward and backward (with entropy).
    """

    forward: Kernel
    logit_gradient: Kernel
    kept: Kernel
    rows: int
    columns: int
    summed: bool
    chunk: int
    second_pass: bool
    from_logits: tuple[float, float]


# Instructions are those of machine code (benchmarks/kernels/resources.py) by Triton 3.6 for sm_90a and bfloat16, at 1894b4e and ef5f422;
# gradients with an entropy's; of what is kept now, the kernel with a reference, which runs. Cycles of plain stores are an estimate.
BEFORE = Design(
    forward=Kernel(serial=1677, seldom=616, nested=True),
    logit_gradient=Kernel(serial=1954, nested=True, stores=300),
    kept=Kernel(serial=1928, seldom=689, nested=True, stores=300),
    rows=32_768,
    columns=8192,
    summed=True,
    chunk=4096,
    second_pass=True,
    from_logits=(12.41, 26.0),
)
NOW = Design(
    forward=Kernel(serial=1218),
    logit_gradient=Kernel(serial=989),
    kept=Kernel(serial=1049),
    rows=T,
    columns=16_384,
    summed=False,
    chunk=3328,
    second_pass=False,
    from_logits=(7.81, 7.25),
)


def linear_logprob_forward(design: Design, chip: Chip) -> Work:
    partials = 3 * 4 * T * math.ceil(V / TILE_COLUMNS)  # that the kernel leaves and another merges
    return Work(kernels=design.forward.cycles(T, V, chip), passes=partials)


def linear_logprob_backward(design: Design, chip: Chip) -> Work:
    hidden, weight = T * H, V * H
    work = Work(passes=hidden * (2 * 2 + 4 + 4 + 2 + 2 + 2 * 2))  # rows taken, float32 zeros, rounded; zeros, rows put back
    for columns in pieces(V, design.columns):
        for rows in pieces(T, design.rows):
            work += Work(kernels=design.logit_gradient.cycles(rows, columns, chip), sums=2 * 4 * rows * H)
            work += product(rows, H, columns, chip) + product(columns, H, rows, chip)
            if design.summed:
                work += Work(sums=2 * 4 * columns * H)
    return work + Work(passes=weight * (4 + 4 + 2) if design.summed else 0)  # float32 zeros, rounded


def linear_policy_loss(design: Design, chip: Chip) -> Work:
    """Forward and backward: all tokens learn."""
    hidden, weight = T * H, V * H
    # Float32 zeros of the head, rounded; times the loss's gradient, as the other gradient is.
    work = Work(passes=weight * (4 + 4 + 2) + (weight + hidden) * 2 * 2)
    for rows in pieces(T, design.chunk):
        work += Work(kernels=design.kept.cycles(rows, V, chip), sums=2 * 4 * weight)
        work += product(rows, H, V, chip) + product(V, H, rows, chip)
        if design.second_pass:
            work += Work(passes=2 * 2 * rows * V)
    return work


def from_logits(design: Design, chip: Chip, clock: float) -> Iterator[tuple[str, float, float]]:
    """Direction, seconds of the bytes, seconds of the instructions."""
    for direction, accesses, instructions in (("forward", 1, design.from_logits[0]), ("backward", 2, design.from_logits[1])):
        issue = instructions * T * V / (_THREADS * _ISSUED * chip.processors * clock)
        yield direction, accesses * 2 * T * V / chip.bandwidth, issue


def rate_of(seconds: float, work: Work, chip: Chip) -> tuple[float, float]:
    """The rates of a large product at which work takes so long: at least and at most as above."""
    rates = []
    for end in (0, 1):
        memory = replace(chip, flops=math.inf).seconds(work)[end]
        rates.append(chip.flops * (chip.seconds(work)[end] - memory) / (seconds - memory))
    return rates[0], rates[1]


def predictions(chip: Chip) -> Iterator[tuple[str, float, tuple[float, float], tuple[float, float]]]:
    """Operation, seconds of its products alone, and seconds before and now: at least and at most."""
    parts = {
        "linear_logprob, forward": (1, linear_logprob_forward),
        "linear_logprob, backward": (3, linear_logprob_backward),
        "linear_logprob, both": (4, lambda design, chip: linear_logprob_forward(design, chip) + linear_logprob_backward(design, chip)),
        "linear_policy_loss": (3, linear_policy_loss),
    }
    for operation, (products, work) in parts.items():
        bound = products * 2 * T * H * V / chip.flops
        yield operation, bound, chip.seconds(work(BEFORE, chip)), chip.seconds(work(NOW, chip))


GOALS = {"linear_logprob, both": 0.175, "linear_policy_loss": 0.140}
"""Seconds, at 790 TFLOP/s."""
RATES = 790e12, 656e12
"""That of the goals, and that which an H200 of ours held for two seconds: kernels_nvidia-h200_2026-11-28.md."""
MEASURED = 0.153
"""Of linear_policy_loss before, on that H200."""
CLOCKS = 1.965e9, Chip(flops=RATES[0]).clock
"""What that H200 told, and the clock of the model."""


def _ms(*seconds: float) -> str:
    return " - ".join(f"{1000 * value:.1f}" for value in seconds)


def main() -> None:
    for flops in RATES:
        chip = Chip(flops=flops)
        print(f"\n{flops / 1e12:.0f} TFLOP/s, {chip.clock / 1e9:.2f} GHz\n\n| operation, ms | bound | goal | before | now |\n{'|---' * 5}|")
        for operation, bound, before, now in predictions(chip):
            goal = _ms(GOALS[operation] * RATES[0] / flops) if operation in GOALS else ""
            print(f"| {operation} | {_ms(bound)} | {goal} | {_ms(*before)} | {_ms(*now)} |")
    print(f"\n| kernel | cycles lost per tile, before | now | tensor cores busy, before | now |\n{'|---' * 5}|")
    for name in ("forward", "logit_gradient", "kept"):
        lost = [getattr(design, name).lost() for design in (BEFORE, NOW)]
        busy = [f"{H / STEP * STEP_CYCLES / (H / STEP * STEP_CYCLES + cycles):.1%}" for cycles in lost]
        print(f"| {name} | {lost[0]:,.0f} | {lost[1]:,.0f} | {' | '.join(busy)} |")
    print(
        "\n| logprob_from_logits, ms | bytes | goal |"
        + "".join(f" instructions {when}, {clock / 1e9:.2f} GHz |" for when in ("before", "now") for clock in CLOCKS)
    )
    print("|---" * 7 + "|")
    chip = Chip(flops=RATES[0])
    found = [[list(from_logits(design, chip, clock)) for clock in CLOCKS] for design in (BEFORE, NOW)]
    for place, (direction, of_bytes, _) in enumerate(found[0][0]):
        issued = [_ms(of_clock[place][2]) for of_design in found for of_clock in of_design]
        print(f"| {direction} | {_ms(of_bytes)} | {_ms(of_bytes / 0.9)} | {' | '.join(issued)} |")
    low, high = rate_of(MEASURED, linear_policy_loss(BEFORE, chip), chip)
    print(f"\nThe {_ms(MEASURED)} ms that linear_policy_loss took before: {low / 1e12:.0f} - {high / 1e12:.0f} TFLOP/s in the model.")


if __name__ == "__main__":
    main()
