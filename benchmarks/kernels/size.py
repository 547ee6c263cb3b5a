"""How large benchmarks are: for a GPU, for a CPU, or so small that only the way through them is tried."""

from __future__ import annotations

from typing import Literal

import torch

Size = Literal["gpu", "cpu", "tiny"]


def size_here() -> Size:
    return "gpu" if torch.cuda.is_available() else "cpu"
