"""The head's kernels alone, at the committed tiles and at others that give the same bits.

    python -m benchmarks.kernels.variants compile SM SHARE SHARES     # fill Triton's cache with one share of them all; no GPU needed
    python -m benchmarks.kernels.variants run KERNEL ROWS             # two runs at the committed tiles, for a profiler

Legend: T rows, H hidden size, V vocabulary, W columns of a slab.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.kernels import settings
from benchmarks.kernels.heads import HEADS, draw
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import kernel, tiled
from polaris_kernels.logprob_from_logits.tiled import Shape
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles, architecture_tiles, row_stride, tiles_for

KERNELS = ("forward", "forward that keeps its exponentials", "gradient of the logits")
HEAD = "qwen3-4b"
ROWS = {"forward": 40_960, "forward that keeps its exponentials": 3328, "gradient of the logits": 40_960}
"""Of a step of Qwen3-4B, and of a chunk of `linear_policy_loss`, which fills whole waves of 132 processors."""
SLAB = 16_384
STAGES, GROUPS = (3, 4), (8, 16, 32)
INTERPRETED = Tiles(block_t=32, block_v=256, block_h=64, group=2, processors=3, warps=4, stages=2, tma=False, merge=64)
"""For a machine without a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Tiles, and whether the loads of a tile begin while the one before it is finished (`flatten` of the kernels' loop)."""

    tiles: Tiles
    flat: bool

    @property
    def name(self) -> str:
        return f"{self.tiles.stages} stages, groups of {self.tiles.group}, {'one loop' if self.flat else 'nested loops'}"


def variants(committed: Tiles) -> list[Variant]:
    """The committed tiles first. None of these changes what is added to what, so all of them give the same bits."""
    first = Variant(tiles=committed, flat=True)
    others = [
        Variant(tiles=replace(committed, stages=stages, group=group), flat=flat)
        for flat, stages, group in itertools.product((True, False), STAGES, GROUPS)
    ]
    return [first, *(other for other in others if other != first)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel and its inputs in memory: `run` returns the result, which the next run overwrites; `flops` of its product."""

    run: Callable[[Variant], Tensor]
    flops: float


def prepare(name: str, hidden: Tensor, head: Head, targets: Tensor, committed: Tiles) -> Kernel:
    """The kernel on these hidden states [T, H], head and targets [T]."""
    (rows, size), vocabulary = hidden.shape, len(head.weight)
    temperature = torch.full((rows,), 0.8, device=hidden.device)
    if name == "forward":
        return Kernel(
            run=lambda v: of(v, lambda: tiled.tiled_statistics(hidden, head, temperature, v.tiles)[0]),
            flops=2 * rows * size * vocabulary,
        )
    if name == "forward that keeps its exponentials":
        kept = hidden.new_empty(rows, row_stride(vocabulary))[:, :vocabulary]
        reference = tiled.target_logits(hidden, head, targets, committed) * tiled.base_2_scale(committed) / temperature

        def keep(v: Variant) -> Tensor:
            of(v, lambda: tiled.tiled_statistics(hidden, head, temperature, v.tiles, exponentials=kept, reference=reference)[0])
            return kept

        return Kernel(run=keep, flops=2 * rows * size * vocabulary)
    width = min(SLAB, vocabulary)
    gradient, values = hidden.new_empty(rows, row_stride(width))[:, :width], backward_values(hidden, head, targets, temperature, committed)
    row = tiled._of_rows(values, 0.0, committed)

    def differentiate(v: Variant) -> Tensor:
        of(v, lambda: tiled._logit_gradient(hidden, head, values, row, gradient, 0, v.tiles))
        return gradient

    return Kernel(run=differentiate, flops=2 * rows * size * width)


def backward_values(hidden: Tensor, head: Head, targets: Tensor, temperature: Tensor, tiles: Tiles) -> Rows:
    """What the backward of a mean log-prob with an entropy bonus knows of each row."""
    logprob, entropy, (maximum, log_total) = tiled.tiled_forward(hidden, head, targets, temperature, -100, tiles)
    known = {"targets": targets, "temperature": temperature, "maximum": maximum, "log_total": log_total}
    known |= {"logprob": logprob, "entropy": entropy}
    up = torch.full_like(temperature, 1 / len(targets))
    return Rows(**known, logprob_gradient=up, entropy_gradient=up)


def of(variant: Variant, run: Callable[[], Tensor | None]) -> Tensor | None:
    """The run, with the kernels' loops as the variant has them."""
    if variant.flat:
        return run()
    with patch.multiple(tiled, forward_kernel=nested().forward_kernel, gradient_kernel=nested().gradient_kernel):
        return run()


@functools.cache
def nested() -> ModuleType:
    """The kernels' source without `flatten`, from a file of its own, where Triton looks for it."""
    flat = Path(kernel.__file__).read_text()
    source = flat.replace(", flatten=True)", ")")
    assert source != flat, "the kernels' loops are not flattened any more"
    folder = Path(tempfile.mkdtemp()) / "nested"
    folder.mkdir()
    (folder / "kernel.py").write_text(source)
    spec = importlib.util.spec_from_file_location("benchmarks.nested.kernel", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def inputs(device: torch.device, rows: int) -> tuple[Tensor, Head, Tensor, Tiles]:
    """Hidden states, head, targets and committed tiles; without a GPU small ones, in float32: the interpreter has no bfloat16 products."""
    cuda = device.type == "cuda"
    which, dtype = (HEAD, torch.bfloat16) if cuda else ("tiny", torch.float32)
    hidden, weight, targets = (tensor.detach() for tensor in draw(which, rows, device, dtype))
    head = Head(weight=weight)
    return hidden, head, targets, tiles_for(hidden, head) if cuda else INTERPRETED


def compile_share(architecture: int, share: int, shares: int) -> int:
    """Compile every `shares`-th variant for an architecture (90), on meta tensors of the real shapes; how many did not compile."""
    from benchmarks.kernels.ahead import recorded

    failed = 0
    for name, launch in _launches(f"sm_{architecture}")[share::shares]:
        try:
            with recorded(f"sm_{architecture}"):
                launch()
        except Exception as error:  # the others are still wanted, and the launch of this one will tell the reason again
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return failed


def _launches(chip: str) -> list[tuple[str, Callable[[], object]]]:
    """Every variant of the head's kernels and every block of `logprob_from_logits`, on meta tensors."""
    vocabulary, size = HEADS[HEAD]
    head = Head(weight=torch.empty(vocabulary, size, dtype=torch.bfloat16, device="meta"))
    committed = architecture_tiles(chip, head)

    def of_kernel(name: str, variant: Variant) -> None:
        hidden = torch.empty(ROWS[name], size, dtype=torch.bfloat16, device="meta")
        prepare(name, hidden, head, torch.empty(len(hidden), dtype=torch.long, device="meta"), committed).run(variant)

    def of_logits(shape: Shape) -> None:
        logits = torch.empty(settings.LENGTH, vocabulary, dtype=torch.bfloat16, device="meta")
        targets = torch.empty(len(logits), dtype=torch.long, device="meta")
        settings.differentiate(logits, targets, torch.empty_like(logits), settings.score(logits, targets, shape), shape)

    found = [(f"{name}, {v.name}", functools.partial(of_kernel, name, v)) for name, v in itertools.product(KERNELS, variants(committed))]
    return found + [(f"logits, {shape}", functools.partial(of_logits, shape)) for shape in settings.shapes()]


def run_twice(name: str, rows: int) -> None:
    hidden, head, targets, committed = inputs(torch.device("cuda"), rows)
    kernel_alone = prepare(name, hidden, head, targets, committed)
    for _ in range(2):
        kernel_alone.run(variants(committed)[0])
    torch.cuda.synchronize()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "compile":
        sys.exit(compile_share(*map(int, arguments)))
    run_twice(arguments[0], int(arguments[1]))
