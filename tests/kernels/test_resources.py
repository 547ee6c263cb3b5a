"""Every kernel compiles ahead of time for sm_80 and sm_90a, without a GPU, within what the chip has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
PRODUCTS = ("linear_logprob.forward_kernel", "linear_logprob.gradient_kernel")


@pytest.fixture(scope="module")
def compiled():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "benchmarks" / "kernels" / "resources.py"), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.slow
def test_kernels_fit_the_chip(compiled):
    assert {row["architecture"] for row in compiled} == {80, 90}
    for row in compiled:
        assert row["stack"] == row["spills"] == 0, row
        assert row["registers"] * row["warps"] * 32 <= 65_536, row
        assert row["shared"] <= SHARED_MEMORY[row["architecture"]], row


@pytest.mark.slow
def test_products_use_tensor_cores(compiled):
    products = [row for row in compiled if row["kernel"] in PRODUCTS and not row["case"].startswith("float32")]
    assert {row["kernel"] for row in products} == set(PRODUCTS)
    for row in products:
        assert row["tensor_cores"] == {80: "HMMA", 90: "HGMMA"}[row["architecture"]], row
        # A branch that redefines the accumulator makes the assembler wait for every product: no error, half the speed.
        assert row["in_flight"] == {80: 0, 90: 1}[row["architecture"]], row


_UNKNOWN = """
import torch
from resources import TokenBatch, PolicyLossSettings, policy_loss, recorded
values = torch.empty(100, device="meta")
for architecture in (80, 90):
    for name in ("kind", "correction"):
        settings = PolicyLossSettings(correction="mask")
        object.__setattr__(settings, name, "ppo")
        with recorded(architecture):
            try:
                policy_loss.tiled_forward(values, TokenBatch(behaviour_logprob=values, advantage=values), settings)
                print("compiled")
            except Exception as error:
                print("does not know this" in str(error) or "does not know this" in str(error.__cause__))
"""


@pytest.mark.slow
def test_an_unknown_loss_or_correction_does_not_compile():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", _UNKNOWN]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT / "benchmarks" / "kernels")
    assert found.stdout.split() == ["True"] * 4
