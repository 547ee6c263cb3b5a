"""What every benchmark of the kernels needs: the device, its bounds, and whether the operation's tests pass."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contest import Bound, median_seconds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def device() -> torch.device:
    torch.set_num_threads(os.cpu_count() or 1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def bound(device: torch.device) -> Bound:
    size, length = (8192, 2**30) if device.type == "cuda" else (2048, 2**28)
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    source, target = torch.empty(2, length, dtype=torch.uint8, device=device).random_()
    return Bound(
        flops=2 * size**3 / median_seconds(lambda: left @ right, device, 20),
        bandwidth=2 * length / median_seconds(lambda: target.copy_(source), device, 20),
    )


@pytest.fixture(scope="session")
def green(device: torch.device) -> Callable[[str], bool]:
    """Whether an operation's tests pass here and now: a speed-up over a peer is only told if they do."""

    @functools.cache
    def tests_pass(operation: str) -> bool:
        files = [*sorted((ROOT / "tests/kernels").glob(f"test_{operation}*.py")), ROOT / "tests/kernels/test_public_calls_on_kernels.py"]
        if device.type == "cuda":
            files.append(ROOT / "tests/kernels/test_on_gpu.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-m", "pytest", "-q", *map(str, files)], cwd=ROOT, env=environment).returncode == 0

    return tests_pass
