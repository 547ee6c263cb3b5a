"""The check at start that trainer and engine use the rotary angles of the configuration, by the formulas in float64.

Versions of transformers and vLLM disagree about names and defaults of YaRN's settings. A wrong angle raises no error; it only
makes long responses worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from polaris.errors import RunFailed
from polaris.model.rope import Rope

_FLOAT32_ANGLE = 1e-6
"""Largest relative error of an angle computed in float32, as both stacks do."""


class RopeMismatch(RunFailed):
    """A stack's rotary embedding differs from that of the configuration."""


def check_rope(stack: str, rope: Rope, table: Callable[[Sequence[int]], Tensor | None]) -> float | None:
    """Compare a stack's rotary table with the formulas, at positions up to the last one; returns the largest difference.

    None without a table: then log-probs must prove the positions (`polaris.sync.probe.make_far_probe`).

    Args:
        stack: its name in the error.
        table: cosines, then sines, at given positions, [P, D] in the stack's dtype; missing positions are left out. It returns None
            for a stack without a table.

    Raises:
        RopeMismatch: the table is too short, or attention factor or angles differ from `rope`.
    """
    positions = sampled_positions(rope.max_positions)
    rows = table(positions) if rope.parameters else None
    if rows is None:
        return None
    if rows.shape != (len(positions), rope.dimensions):
        raise RopeMismatch(
            f"the {stack}'s rotary table has shape {tuple(rows.shape)} where {(len(positions), rope.dimensions)} was asked for: it does "
            f"not reach all of {rope.max_positions} positions, or rotates other dimensions. Lower rope.max_positions, or install the "
            "versions that Polaris is tested with"
        )
    rounding, found = torch.finfo(rows.dtype).eps, rows.double().numpy()
    cosines, sines = np.split(found, 2, axis=1)
    factor, expected = float(np.hypot(cosines, sines).mean()), attention_factor(rope)
    angles = np.outer(positions, inverse_frequencies(rope))
    truth = expected * np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    gap = np.abs(found - truth)
    allowed = expected * (rounding + _FLOAT32_ANGLE * (1 + np.tile(angles, 2)))
    if not (abs(factor - expected) <= expected * (rounding + _FLOAT32_ANGLE) and (gap <= allowed).all()):
        row, column = divmod(int(np.argmax(np.nan_to_num(gap - allowed, nan=np.inf))), rope.dimensions)
        raise RopeMismatch(
            f"the {stack}'s rotary embedding is not that of the [rope] section: attention factor {factor:.6g} instead of {expected:.6g}, "
            f"largest difference {gap[row, column]:.3g} at position {positions[row]}, frequency {column % (rope.dimensions // 2)}. Its "
            f"version reads {rope.parameters} in another way; install the versions that Polaris is tested with"
        )
    return float(gap.max())


def sampled_positions(count: int) -> list[int]:
    """Powers of two below `count`, 0 and count - 1: slow and fast angles show at some of them."""
    return sorted({0, count - 1} | {2**power for power in range(count.bit_length()) if 2**power < count})


def attention_factor(rope: Rope) -> float:
    """The factor on cosines and sines; 1 except for YaRN."""
    return float(rope.parameters.get("attention_factor", 1.0))


def inverse_frequencies(rope: Rope) -> np.ndarray:
    """[dimensions / 2] float64: the angle in radians that one position adds, fastest first."""
    plain = rope.parameters["rope_theta"] ** (-np.arange(0, rope.dimensions, 2) / rope.dimensions)
    return {"default": lambda: plain, "yarn": lambda: _yarn(rope, plain), "llama3": lambda: _llama3(rope, plain)}[
        rope.parameters["rope_type"]
    ]()


def _yarn(rope: Rope, plain: np.ndarray) -> np.ndarray:
    """YaRN (Peng et al. 2023, section 3.2): fast frequencies stay, and those slow within the original positions are interpolated.

    The ramp between them is over the index of the frequency, as in the authors' code, not over the number of turns, as in the paper.
    """
    values, size = rope.parameters, rope.dimensions
    low, high = (
        size * math.log(values["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(values["rope_theta"]))
        for turns in (values["beta_fast"], values["beta_slow"])
    )
    if values["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    interpolated = np.clip((np.arange(size // 2) - low) / max(high - low, 1e-3), 0, 1)
    return plain * (1 - interpolated) + plain / values["factor"] * interpolated


def _llama3(rope: Rope, plain: np.ndarray) -> np.ndarray:
    """Llama 3.1's scaling: as YaRN, with a ramp over the number of turns."""
    values = rope.parameters
    turns = values["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = np.clip((turns - values["low_freq_factor"]) / (values["high_freq_factor"] - values["low_freq_factor"]), 0, 1)
    return plain * kept + plain / values["factor"] * (1 - kept)
