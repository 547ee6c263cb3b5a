"""What tensor cores lose of a logit, made up for on average.

They add a few products at once to a float32 sum and cut what it cannot hold toward zero. A sum that grows evenly to z comes out smaller by
z times a loss per step times the number of steps (`benchmarks/kernels/tensor_cores.py` emulates them bit for bit and names the sources).
At H = 4096 that is 1.4e-4 of a logit of 33, always of one sign, and shows undiminished in the log-prob of an unlikely token.
"""

from __future__ import annotations

import torch

from polaris_kernels.products import HALF

_LOSS = {"sm_8": 0.18 / 8, "sm_": 0.27 / 16}
"""Loss per product in units of 2^-24 of the sum, by how the chip's name begins; those newer than Ampere and Ada add as sm_90 does."""


def logit_gain(chip: str, dtype: torch.dtype, size: int) -> float:
    """Factor that takes a logit, summed over `size` products of operands of `dtype` on a `chip` as "sm_90", to its unbiased value.

    1 for float32 operands, whose sums begin anew with every block ("tf32x3"), and on AMD's tensor cores, which are other ones.

    Measured on emulated cores: log-probs of uniformly drawn tokens, temperature 0.8, within 7e-5 instead of 3e-4 at H = 4096.
    """
    loss = next((loss for beginning, loss in _LOSS.items() if chip.startswith(beginning)), 0.0)
    return 1 + loss * size * 2**-24 if dtype in HALF else 1.0
