"""Compile every kernel as it is launched at real shapes, with no GPU, and print what it takes of the chip and executes.

    python -m benchmarks.kernels.resources [--on sm_80 sm_90] [--only CASE ...]     # a table of this Triton
    python -m benchmarks.kernels.resources --json                                   # for tests

Launches are recorded on meta tensors, so the compiled code is that of the real call: types, alignment, constants and tiles.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import get_args

import torch
import triton

from benchmarks.kernels.ahead import CHIPS, Launch, recorded, variants
from benchmarks.kernels.cubin import Resources, measure
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import tiled as linear_logprob
from polaris_kernels.linear_policy_loss import tiled as linear_policy_loss
from polaris_kernels.logprob_from_logits import tiled as logprob_from_logits
from polaris_kernels.policy_loss import tiled as policy_loss
from polaris_kernels.policy_loss.settings import Kind, PolicyLossSettings, TokenCorrection
from polaris_kernels.rows import Rows
from polaris_kernels.sampling_mask import WORD
from polaris_kernels.tiles import Tiles, architecture_tiles
from polaris_kernels.token_batch import TokenBatch

_LENGTH, _SIZE, _VOCABULARY = 40_960, 2560, 151_936


def cases(chip: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """The real calls by name; each launches kernels."""
    # Autocast, which a product turns off, knows no meta tensors.
    linear_logprob.product = linear_policy_loss.product = lambda left, right: left.new_empty(len(left), right.shape[1])
    values = torch.empty(_LENGTH, device="meta")
    rows = Rows(**{field.name: values for field in fields(Rows)} | {"targets": values.long(), "sampling_mask": None})
    sampling_mask = torch.empty(_LENGTH, _VOCABULARY // WORD, dtype=torch.int32, device="meta")
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        plain = Head(weight=torch.empty(_VOCABULARY, _SIZE, dtype=dtype, device="meta"))
        bias = torch.empty(_VOCABULARY, dtype=dtype, device="meta")
        heads = {"plain": (plain, rows)}
        if dtype == torch.bfloat16:  # the others with a mask are in compile_all
            heads["sampling mask"] = plain, replace(rows, sampling_mask=sampling_mask)
        heads["bias, softcap, rounded"] = Head(weight=plain.weight, bias=bias, softcap=30.0, logits_dtype=torch.bfloat16), rows
        for name, (head, of_rows) in heads.items():
            for way, call in _of_head(chip, head, of_rows):
                yield f"{str(dtype)[6:]}, {name}{way}", call
        yield str(dtype)[6:], partial(_of_logits, torch.empty(_LENGTH, _VOCABULARY, dtype=dtype, device="meta"), rows)
    yield from _of_policy_loss(values)


def _of_head(chip: str, head: Head, rows: Rows) -> Iterator[tuple[str, Callable[[], object]]]:
    """Both operations that multiply by the head; `linear_policy_loss` keeps exponentials to the target's logit, or to the maximum."""
    hidden, tiles = head.weight.new_empty(_LENGTH, _SIZE), architecture_tiles(chip, head)

    def differentiate() -> None:
        linear_logprob.tiled_forward(hidden, head, rows.targets, rows.temperature, -100, tiles, rows.sampling_mask)
        linear_logprob.tiled_backward(hidden, head, rows, True, tiles)

    yield "", differentiate
    work = _chunk(hidden, head, linear_policy_loss.keeping(tiles, head, rows.sampling_mask), rows.sampling_mask)
    if hidden.dtype != torch.float16 and not head.softcap:
        yield ", kept", partial(linear_policy_loss._learn_by_rows, work, work.call.targets)
    yield ", kept exactly", partial(linear_policy_loss._learn_exactly, work, work.call.targets)


def _of_logits(logits: torch.Tensor, rows: Rows) -> None:
    logprob_from_logits.tiled_forward(logits, rows.targets, rows.temperature, -100)
    logprob_from_logits.tiled_backward(logits, logits, rows, -100)


def _of_policy_loss(values: torch.Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    batch = TokenBatch(
        behaviour_logprob=values,
        advantage=values,
        mask=torch.empty_like(values, dtype=torch.bool),
        proximal_logprob=values,
        sequence_lengths=torch.empty(64, dtype=torch.long, device="meta"),
    )
    for kind in get_args(Kind):
        for correction in get_args(TokenCorrection):
            settings = PolicyLossSettings(kind=kind, correction=correction)
            yield f"{kind}, {correction}", partial(policy_loss.tiled_forward, values, batch, settings)


def _chunk(hidden: torch.Tensor, head: Head, tiles: Tiles, sampling_mask: torch.Tensor | None) -> linear_policy_loss._Work:
    """What `linear_policy_loss` knows of its rows in the forward, all of one chunk."""
    rows = linear_policy_loss.chunk_rows(tiles, hidden.shape[1], len(head.weight) * hidden.element_size())
    values = torch.empty(rows, device="meta")
    call = SimpleNamespace(
        targets=values.long(),
        temperature=values,
        slope=lambda logprob, rows: torch.empty_like(logprob),
        sampling_mask=lambda rows: None if sampling_mask is None else sampling_mask[: len(rows)],
    )
    gradients = linear_policy_loss._Gradients(
        hidden=torch.empty_like(hidden), weight=torch.empty_like(head.weight), bias=None, scale=None, hidden_scale=None
    )
    return linear_policy_loss._Work(
        hidden=hidden, head=head, weight=head.weight, tiles=tiles, call=call, logprob=values, entropy=values, gradients=gradients
    )


def launches(chip: str, only: Collection[str] = ()) -> Iterator[tuple[str, list[Launch]]]:
    """The cases with their launches: all, or `only` those of such names."""
    for name, call in cases(chip):
        if not only or name in only:
            with recorded(chip) as found:
                call()
            yield name, found


def measured(chips: Iterable[str], only: Collection[str] = ()) -> list[Resources]:
    """Every kernel of the cases, on each chip."""
    jobs = [(launch, case, chip) for chip in chips for case, found in launches(chip, only) for launch in variants(found)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: measure(*job), jobs))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--on", nargs="+", default=["sm_80", "sm_90"], choices=list(CHIPS))
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="as the table calls it: 'bfloat16, plain'")
    arguments = parser.parse_args()
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    found = measured(arguments.on, arguments.only)
    if arguments.json:
        print(json.dumps([asdict(row) for row in found]))
        return
    names = [field.name for field in fields(Resources)]
    print(f"triton {triton.__version__}\n\n| {' | '.join(names).replace('_', ' ')} |\n{'|---' * len(names)}|")
    for row in found:
        cells = (getattr(row, name) for name in names)
        print("| " + " | ".join("-" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


if __name__ == "__main__":
    main()
