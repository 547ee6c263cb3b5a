"""The identity of a model: digests of its checkpoint folder, and the settings that decide its numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from polaris.config.schema import RunConfig

_SLICES, _SLICE_BYTES = 64, 1 << 16


def model_identity(folder: Path) -> dict[str, str]:
    """sha256 of a checkpoint's configuration, of its tokenizer and chat template, and of its weights.

    Size, header and 64 slices of 64 KiB of each weight file count: enough to tell two trainings apart, in seconds.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    configs = [path for path in files if path.name in ("config.json", "generation_config.json")]
    words = [path for path in files if path.suffix in (".json", ".txt", ".jinja", ".model") and path not in configs]
    words = [path for path in words if not path.name.endswith(".index.json")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    return {"config": _digest(configs), "tokenizer": _digest(words), "weights": _digest(weights)}


def model_settings(config: RunConfig) -> dict[str, Any]:
    """The model that is sampled from, and how its numbers are computed; not its present weights."""
    rope = {
        "factor": config.rope.factor,  # 0 for a setting left out, as in results of older versions
        "original_positions": config.rope.original_positions or 0,
        "attention_factor": config.rope.attention_factor or 0.0,
        "max_positions": config.rope.max_positions or 0,
    }
    return {"model": config.model.path, "revision": config.model.revision, "dtype": config.model.dtype, "rope": rope}


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
