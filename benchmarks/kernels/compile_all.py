"""Compile every launch that the public operations make on CUDA, without a GPU, and say what it takes of the chip.

    python -m benchmarks.kernels.compile_all [--on sm_80 sm_90] [--only OPERATION ...]

The operations are called on CPU tensors with every dtype and option, at the sizes and layouts that Triton compiles differently: odd, one
row, misaligned. Launches compile and run nothing, matrix products are left out; nobody looks at the results. Prints a line per
operation and architecture, then what has a stack, and fails where something does not compile, keeps more than a few numbers
on a stack, or asks for more shared memory than there is.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import torch
import triton
from torch import Tensor

from benchmarks.kernels.ahead import CHIPS, recorded, variants
from benchmarks.kernels.cubin import Resources, measure
from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss, tiles
from polaris_kernels.policy_loss.settings import Kind, TokenCorrection
from polaris_kernels.sampling_mask import WORD

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
CHUNK = 4096
ROWS, SIZE, VOCABULARY = CHUNK + 104, 256, 40_000
STACK = 64
"""Bytes that a thread may keep on its stack: a few numbers of a loop over tiles. Spilled tiles take hundreds."""


def heads() -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor], dict[str, Any]]]:
    """Every head: its name; hidden states, weight and targets; its options."""
    shapes: dict[str, dict[str, int]] = {
        "one row": {"rows": 1},
        "few rows": {"rows": 37, "vocabulary": 1001},
        "odd numbers": {"rows": ROWS + 1, "vocabulary": VOCABULARY + 1},
        "size of no whole blocks": {"size": 264},
        "rows of no 16 bytes": {"size": 250},
        "misaligned": {"offset": 1},
    }
    for dtype in DTYPES:
        plain, mask = operands(dtype), kept_tokens(ROWS, VOCABULARY)
        bias = torch.zeros(VOCABULARY, dtype=dtype, requires_grad=True)
        dresses: dict[str, dict[str, Any]] = {
            "plain": {},
            "bias": {"bias": bias},
            "softcap": {"softcap": 30.0},
            "bfloat16 logits": {"logits_dtype": torch.bfloat16},
            "float16 logits": {"logits_dtype": torch.float16},
            "all": {"bias": bias, "softcap": 30.0, "logits_dtype": torch.bfloat16},
            "sampling mask": {"sampling_mask": mask},
            "sampling mask, bias": {"sampling_mask": mask, "bias": bias},
            "sampling mask, all": {"sampling_mask": mask, "bias": bias, "softcap": 30.0, "logits_dtype": torch.bfloat16},
        }
        for name, options in dresses.items():
            yield f"{dtype}, {name}", plain, options
        for name, shape in shapes.items():
            values = operands(dtype, **shape)
            yield f"{dtype}, {name}", values, {}
            yield f"{dtype}, {name}, sampling mask", values, {"sampling_mask": kept_tokens(len(values[0]), len(values[1]))}
        yield f"{dtype}, frozen head", (plain[0], plain[1].detach(), plain[2]), {}


def operands(dtype: torch.dtype, rows: int = ROWS, size: int = SIZE, vocabulary: int = VOCABULARY, offset: int = 0) -> tuple[Tensor, ...]:
    """Hidden states, weight and targets; the matrices begin `offset` numbers into their memory, as views of flat parameters may."""
    matrices = (torch.zeros(n * size + offset, dtype=dtype)[offset:].view(n, size) for n in (rows, vocabulary))
    return *(matrix.requires_grad_() for matrix in matrices), torch.zeros(rows, dtype=torch.long)


def kept_tokens(rows: int, vocabulary: int) -> Tensor:
    """A sampling mask that keeps every token."""
    return torch.full((rows, math.ceil(vocabulary / WORD)), -1, dtype=torch.int32)


def tokens(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Behaviour log-probs, advantages (the last token has none) and the lengths of the sequences."""
    advantage = torch.ones(rows)
    advantage[-1] = rows == 1
    return torch.zeros(rows), advantage, torch.tensor([rows // 2, rows - rows // 2])


def calls_of_linear_logprob() -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, values, options in heads():
        yield name, lambda v=values, o=options: linear_logprob(*v, **o, temperature=0.8)[0].sum().backward()
        yield f"{name}, entropy", lambda v=values, o=options: sum(linear_logprob(*v, **o)).sum().backward()


def calls_of_linear_policy_loss() -> Iterator[tuple[str, Callable[[], Any]]]:
    def call(values: tuple[Tensor, ...], **options: Any) -> None:
        behaviour, advantage, lengths = tokens(len(values[0]))
        linear_policy_loss(*values, behaviour, advantage, None, 1e6, sequence_lengths=lengths, **options)[0].backward()

    for name, values, options in heads():
        yield name, lambda v=values, o=options: call(v, **o)
    for kind in get_args(Kind):
        yield kind, lambda k=kind: call(operands(torch.bfloat16), kind=k, proximal_logprob=torch.zeros(ROWS))


def calls_of_logprob_from_logits() -> Iterator[tuple[str, Callable[[], Any]]]:
    def call(logits: Tensor, entropy: bool, inplace: bool = False, masked: bool = False) -> None:
        logits = (logits.requires_grad_() * 1)[:, : VOCABULARY + 1]
        options: dict[str, Any] = {"inplace_backward": inplace, "sampling_mask": kept_tokens(*logits.shape) if masked else None}
        results = logprob_from_logits(logits, torch.zeros(len(logits), dtype=torch.long), 0.8, **options)
        (sum(results) if entropy else results[0]).sum().backward()

    for dtype in DTYPES:
        for rows, columns in ((64, VOCABULARY), (37, VOCABULARY + 1), (64, VOCABULARY + 16), (1, VOCABULARY)):
            for entropy in (False, True):
                name = f"{dtype}, {rows} rows of {columns}, entropy {entropy}"
                yield name, lambda d=dtype, r=rows, c=columns, e=entropy: call(torch.zeros(r, c, dtype=d), e)
                yield (
                    f"{name}, sampling mask",
                    lambda d=dtype, r=rows, c=columns, e=entropy: call(torch.zeros(r, c, dtype=d), e, masked=True),
                )
        yield f"{dtype}, in place", lambda d=dtype: call(torch.zeros(64, VOCABULARY, dtype=d), True, inplace=True)


def calls_of_policy_loss() -> Iterator[tuple[str, Callable[[], Any]]]:
    def call(rows: int, masked: bool, **options: Any) -> None:
        behaviour, advantage, lengths = tokens(rows)
        mask = torch.ones(rows, dtype=torch.bool) if masked else None
        logprob = torch.zeros(rows, requires_grad=True)
        policy_loss(logprob, behaviour, advantage, mask, 1e6, sequence_lengths=lengths, **options)[0].backward()

    for kind in get_args(Kind):
        for rows in (1, 37, 16 * CHUNK):
            yield f"{kind}, {rows} tokens", lambda k=kind, r=rows: call(r, False, kind=k)
        for correction in get_args(TokenCorrection):
            for masked in (False, True):
                for dual in (0.0, 3.0) if kind == "dapo" else (3.0,):
                    options = {"kind": kind, "correction": correction, "dual_clip": dual}
                    yield f"{options}, mask {masked}", lambda o=options, m=masked: call(ROWS, m, **o)


CALLS = {
    "linear_logprob": calls_of_linear_logprob,
    "linear_policy_loss": calls_of_linear_policy_loss,
    "logprob_from_logits": calls_of_logprob_from_logits,
    "policy_loss": calls_of_policy_loss,
}


def as_on_cuda(chip: str) -> None:
    """From now on the operations take CPU tensors for those of a device; products, which are cuBLAS's, are not worked out."""
    replacements = {
        "uses_triton": lambda tensor: True,
        "product_operand": lambda matrix: matrix,
        "product": lambda left, right: left.new_zeros(len(left), right.shape[1], dtype=torch.float32),
        "accumulate": lambda total, left, right: None,
        "rounded_product": lambda left, right, out: None,
    }
    for operation in CALLS:
        for part in ("function", "tiled"):
            module = importlib.import_module(f"polaris_kernels.{operation}.{part}")
            for name in replacements.keys() & vars(module).keys():
                setattr(module, name, replacements[name])
    tiles._device = lambda device: (chip, CHIPS[chip].processors)


def compiled(operation: str, chip: str) -> tuple[list[Resources], float]:
    """What every variant takes that the operation launches, with the first call that does; and the seconds of calls and compilation."""
    as_on_cuda(chip)
    start, cases = time.perf_counter(), []
    with recorded(chip) as launches:
        for case, call in CALLS[operation]():
            try:
                call()
            except Exception as error:
                error.add_note(f"{operation}, {chip}: {case}")
                raise
            cases += [case] * (len(launches) - len(cases))
    seconds, case_of = time.perf_counter() - start, dict(zip(map(id, launches), cases, strict=True))
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda launch: measure(launch, case_of[id(launch)], chip), variants(launches))), seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--on", nargs="+", default=["sm_80", "sm_90"], choices=list(CHIPS))
    parser.add_argument("--only", nargs="+", default=list(CALLS), choices=list(CALLS))
    arguments = parser.parse_args()
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    warnings.filterwarnings("ignore", message="kind = .* is a loss of whole sequences")
    torch.set_num_threads(1)
    print(f"triton {triton.__version__}, torch {torch.__version__}\n")
    columns = ("operation", "chip", "variants", "seconds", "shared KiB", "registers", "stack", "spills")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    spilled, bad = [], []
    for chip in arguments.on:
        for operation in arguments.only:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["TRITON_CACHE_DIR"] = folder
                rows, seconds = compiled(operation, chip)
            spilled += [row for row in rows if row.stack or row.spills]
            bad += [row for row in rows if row.stack > STACK or row.shared > CHIPS[chip].shared_memory]
            largest = [max(getattr(row, name) for row in rows) for name in ("shared", "registers", "stack", "spills")]
            cells = (operation, chip, len(rows), f"{seconds:.0f}", largest[0] >> 10, *largest[1:])
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\nWith a stack:\n" if spilled else "\nNothing has a stack.")
    for row in spilled:
        print(f"- {row.kernel}, {row.chip}, {row.case}: {row.stack} bytes, {row.spills} instructions, {row.registers} registers")
    sys.exit("\n".join(map(str, bad)) or None)


if __name__ == "__main__":
    main()
