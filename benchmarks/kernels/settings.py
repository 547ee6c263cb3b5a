"""Settings of whole operations at the committed values and at others: rows of a chunk of `linear_policy_loss`, blocks of
`logprob_from_logits`. Not all give the same bits, so each is held to a bound of error before it is timed.

Legend: T rows, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.kernels import linear_policy_loss
from benchmarks.kernels.contest import OURS, Choice, Work
from benchmarks.kernels.heads import HEADS
from benchmarks.kernels.peers import TEMPERATURE, load
from polaris_kernels.head import Head
from polaris_kernels.linear_policy_loss import tiled as policy_gradients
from polaris_kernels.logprob_from_logits.tiled import Shape, tiled_backward, tiled_forward
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import row_stride, tiles_for

HEAD, LENGTH = "qwen3-4b", 40_960
THREADS, BYTES = (128, 256, 512), (32, 64, 128)
SAMPLE = 32
"""Rows of the logits that are worked out in float64."""
NATS, OF_NORM, BETWEEN = 1e-5, 4e-3, 1e-3
"""Allowed: of log-probs and entropies; of a bfloat16 gradient against float64, and against another sum of the same, by norm."""


def chunks(device: torch.device, small: bool) -> Choice:
    """`linear_policy_loss` with its backward, by rows of a chunk; its error against float64 is another figure.

    Half and twice as many rows fill as many waves of processors as the committed number, one and a half times as many
    nearly; 4,096 do not.
    """
    head, rows, length = ("tiny", 64, 16) if small else (HEAD, LENGTH, 2048)
    arena, function = linear_policy_loss.prepare(device, head, rows, length), load(linear_policy_loss.CONTESTANTS, OURS, device)
    committed = 64 if small else _committed_chunk(device)
    expected = [gradient.clone() for gradient in arena.run(function)]

    def run(chunk: int) -> object:
        with rows_of_a_chunk(chunk):
            return arena.run(function)

    others = {whole_tiles(committed * factor) for factor in (0.5, 1.5, 2)} | {4096}
    return Choice(
        runs={f"{chunk} rows": lambda chunk=chunk: run(chunk) for chunk in (committed, *sorted(others - {committed}))},
        wrong=lambda gradients: _too_far(zip(gradients, expected, strict=True), BETWEEN),
        work=arena.work,
    )


def rows_of_a_chunk(rows: int) -> AbstractContextManager[object]:
    """Inside, `linear_policy_loss` takes so many rows at a time."""
    return patch.object(policy_gradients, "chunk_rows", lambda *_: rows)


def whole_tiles(rows: float) -> int:
    """Rows in whole tiles of 128."""
    return max(1, round(rows / 128)) * 128


def _committed_chunk(device: torch.device) -> int:
    vocabulary, size = HEADS[HEAD]
    weight = torch.empty(vocabulary, size, dtype=torch.bfloat16, device=device)
    return policy_gradients.chunk_rows(tiles_for(weight, Head(weight=weight)), size, row_stride(vocabulary) * weight.element_size())


def shapes() -> list[Shape]:
    """The committed block first."""
    others = itertools.starmap(lambda threads, size: Shape(threads=threads, bytes=size), itertools.product(THREADS, BYTES))
    return [Shape(), *(shape for shape in others if shape != Shape())]


def score(logits: Tensor, targets: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, entropies [T] and the softmax's [2, T] by the forward kernel."""
    return tiled_forward(logits, targets, torch.full_like(targets, TEMPERATURE, dtype=torch.float32), -100, shape)


def differentiate(logits: Tensor, targets: Tensor, gradient: Tensor, scores: tuple[Tensor, Tensor, Tensor], shape: Shape) -> Tensor:
    """The gradient of sum(log-prob + 0.1 entropy) into `gradient` [T, V]."""
    logprob, entropy, (maximum, log_total) = scores
    known = {"maximum": maximum, "log_total": log_total, "logprob": logprob, "entropy": entropy}
    up, temperature = torch.ones_like(logprob), torch.full_like(logprob, TEMPERATURE)
    row = Rows(**known, targets=targets, temperature=temperature, logprob_gradient=up, entropy_gradient=0.1 * up)
    tiled_backward(logits, gradient, row, -100, shape)
    return gradient


def blocks(direction: str, device: torch.device, small: bool) -> Choice:
    """`logprob_from_logits`, "forward" or "backward", by the block of a program; errors are those of some rows against float64."""
    rows, vocabulary = (64, 1024) if small else (LENGTH, HEADS[HEAD][0])
    generator = torch.Generator(device).manual_seed(0)
    logits = 4 * torch.randn(rows, vocabulary, generator=generator, device=device, dtype=torch.bfloat16)
    targets = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    places = torch.arange(0, rows, rows // SAMPLE, device=device)
    leaf = logits[places].double().requires_grad_()
    exact = (leaf / TEMPERATURE).log_softmax(-1)
    logprob, entropy = exact.gather(1, targets[places, None])[:, 0], -(exact.exp() * exact).sum(-1)
    (true,) = torch.autograd.grad((logprob + 0.1 * entropy).sum(), leaf)
    scored = logprob.detach(), entropy.detach()
    size = logits.numel() * logits.element_size()
    if direction == "forward":
        return Choice(
            runs={_name(shape): lambda shape=shape: score(logits, targets, shape)[:2] for shape in shapes()},
            wrong=lambda found: _too_wide(((got[places], true) for got, true in zip(found, scored, strict=True)), NATS),
            work=Work(bytes=size),
        )
    gradient, scores = torch.empty_like(logits), score(logits, targets, Shape())
    return Choice(
        runs={_name(shape): lambda shape=shape: differentiate(logits, targets, gradient, scores, shape) for shape in shapes()},
        wrong=lambda found: _too_far([(found[places], true)], OF_NORM),
        work=Work(bytes=2 * size),
    )


def _name(shape: Shape) -> str:
    return f"{shape.threads} threads, {shape.bytes} bytes"


def _too_far(pairs: Iterable[tuple[Tensor, Tensor]], most: float) -> str:
    """Found and expected gradients, by the norm of what is expected."""
    worst = max(float((found.double() - expected).norm() / expected.norm(dtype=torch.float64)) for found, expected in pairs)
    return "" if worst <= most else f"a gradient is off by {worst:.1e} of its norm, allowed are {most:.0e}"


def _too_wide(pairs: Iterable[tuple[Tensor, Tensor]], most: float) -> str:
    worst = max(float((found.double() - expected).abs().max()) for found, expected in pairs)
    return "" if worst <= most else f"off by {worst:.1e} nats, allowed are {most:.0e}"
