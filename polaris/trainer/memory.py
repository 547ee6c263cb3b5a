"""Do trainer and rollout engine fit on one GPU together? Arithmetic before anything is loaded."""

from __future__ import annotations

import math

from polaris.config.bounds import require

_RESERVE = 3 << 30
"""Bytes of CUDA context, NCCL buffers and fragmentation."""
_GIB = 1 << 30


def check_memory(parameters: int, ranks: int, fraction: float, total: int) -> None:
    """Raise `Refused` where `total` bytes of each rank's GPU are too few.

    While the engine samples with its `fraction`, the trainer keeps its shard of float32 weights and both moments (12 bytes per
    parameter); while it trains, the engine sleeps and gradients (4 bytes) come on top, activations not counted.
    """
    kept, trained = 12 * parameters / ranks + _RESERVE, 16 * parameters / ranks + _RESERVE
    needed = math.ceil(16 * parameters / max(1, total - _RESERVE))
    require(
        trained < total,
        f"weights, gradients and optimizer of {parameters / 1e9:.1f}B parameters on {ranks} ranks need {trained / _GIB:.0f} GiB of each "
        f"GPU, which has {total / _GIB:.0f}; start {needed} ranks or more",
    )
    largest = math.floor(20 * (1 - kept / total)) / 20
    require(
        fraction * total + kept <= total,
        f"rollout.gpu_memory_fraction = {fraction:g} leaves too little beside the {kept / _GIB:.0f} GiB that the trainer keeps of each "
        f"GPU's {total / _GIB:.0f}; set it to {largest:g} or less, or start more ranks",
    )
