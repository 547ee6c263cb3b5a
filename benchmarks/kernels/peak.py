"""One forward and backward in this process: `python peak.py linear_logprob|eager ROWS` prints its seconds and peak memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from polaris_kernels import linear_logprob
from polaris_kernels.linear_logprob import linear_logprob_reference

VOCABULARY, SIZE = 151_936, 2560
FUNCTIONS = {"linear_logprob": linear_logprob, "eager": linear_logprob_reference}


def peak_memory() -> int:
    """The process's largest resident memory since `reset_peak`, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def main(name: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, SIZE, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(VOCABULARY, SIZE, generator=generator) / SIZE**0.5).bfloat16().requires_grad_()
    targets = torch.randint(VOCABULARY, (rows,), generator=generator)
    before = reset_peak()
    start = time.perf_counter()
    logprob, entropy = FUNCTIONS[name](hidden, weight, targets, temperature=1.0)
    (logprob.sum() + 0.01 * entropy.sum()).backward()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_gib": (peak_memory() - before) / 2**20}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
