"""The train step of Qwen3-4B on one GPU; see `train_step`. About 80 GB of GPU memory."""

from contextlib import suppress

import pytest
import torch

from benchmarks.step.train_step import QWEN3_4B, measure_step


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [16384, 32768, 65536])
def test_train_step(benchmark, tmp_path, tokens):
    facts = {}
    with suppress(torch.OutOfMemoryError):
        benchmark.pedantic(lambda: facts.update(measure_step(QWEN3_4B, tmp_path, tokens)), rounds=1)
    if not facts:  # skipped here, not where it is caught: the error would keep the policy alive
        pytest.skip(f"out of memory on {torch.cuda.get_device_name()}")
    benchmark.extra_info["facts"] = facts
