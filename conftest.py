"""GPU tests skip without a device, and Triton's interpreter then runs the kernels on the CPU."""

import importlib
import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton asks this variable when a kernel is decorated, that is here; programs that tests start must not inherit it.
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.experimental.gluon")
    for operation in ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss"):
        importlib.import_module(f"polaris_kernels.{operation}.tiled")
    del os.environ["TRITON_INTERPRET"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
