"""What every benchmark of the kernels needs: the device, its bounds, and the operations whose tests pass."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from benchmarks.gpu.suites import command
from benchmarks.kernels.contest import Bound, measure_bound
from benchmarks.kernels.contests import OPERATIONS
from benchmarks.kernels.size import size_here


@pytest.fixture(scope="session")
def device() -> torch.device:
    torch.set_num_threads(os.cpu_count() or 1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def bound(device: torch.device) -> Bound:
    return measure_bound(device, size_here())


@pytest.fixture(scope="session", autouse=True)
def green() -> set[str]:
    """Operations whose tests pass here and now, run before anything lies on the device: only they are compared with peers."""
    return {operation for operation in OPERATIONS if subprocess.run(**command(operation)).returncode == 0}
