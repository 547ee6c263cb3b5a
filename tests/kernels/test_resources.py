"""Kernels compile ahead of time, without a GPU, within what the chip has: those of each operation for sm_80 and sm_90a, by the newest and
the oldest Triton; the head's for every chip that has tiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polaris_kernels.tiles import _HALF

ROOT = Path(__file__).resolve().parents[2]
KIBIBYTES = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64}
"""Of shared memory that a block may have, by the makers' documents."""
TABLE = ("sm_80", "sm_90")
PAGE_ONLY = ("sm_89",)
"""Whose tiles and shared memory are those of sm_120: in the page of benchmarks/results, to spare time here."""
PRODUCTS = ("linear_logprob.forward_kernel", "linear_logprob.gradient_kernel")
PER_LOGIT = {
    ("linear_logprob.forward_kernel", "bfloat16, plain"): {"sm_80": 12.9, "sm_90": 10.0},
    ("linear_logprob.gradient_kernel", "bfloat16, plain"): {"sm_80": 10.7, "sm_90": 7.7},
    ("linear_logprob.forward_kernel", "bfloat16, plain, kept"): {"sm_80": 14.2, "sm_90": 8.7},
    ("linear_logprob.forward_kernel", "bfloat16, plain, kept exactly"): {"sm_80": 15.7, "sm_90": 10.7},
    ("logprob_from_logits.forward_kernel", "bfloat16"): {"sm_80": 7.8, "sm_90": 7.8},
    ("logprob_from_logits.backward_kernel", "bfloat16"): {"sm_80": 7.3, "sm_90": 7.3},
}
"""Instructions per logit beside the product, by the Triton that needs more; see the newest benchmarks/results/kernel-resources page."""
_HEADS = [f"{head}{way}" for head in ("plain", "sampling mask", "bias, softcap, rounded") for way in ("", ", kept", ", kept exactly")]
CASES = (
    *("bfloat16", *(f"bfloat16, {head}" for head in _HEADS)),
    *("float16", "float16, bias, softcap, rounded, kept exactly"),
    *("float32, bias, softcap, rounded", "float32, plain, kept"),
    *("dapo, off", "dapo, tis", "dapo, mask", "grpo, off", "dr_grpo, off", "gspo, off", "cispo, off"),
)
"""Three of five launches, to spare time: each kernel, each dtype, each way, and each constant on its own. Where the oldest Triton is tried
too, all of them, as in the page of benchmarks/results."""
SLACK = 1.1
OLDEST = os.environ.get("POLARIS_OLDEST_TRITON")
NO_OLDEST = "POLARIS_OLDEST_TRITON names no folder: `pip download --no-deps triton==3.6.0`, unzip the wheel, and give its folder"
TRITONS = [None, pytest.param(OLDEST, marks=pytest.mark.skipif(OLDEST is None, reason=NO_OLDEST))]
"""Folders that hold the package; None is the installed one."""


def start(*arguments: str, triton: str | None = None) -> subprocess.Popen:
    """A process that compiles: Triton's interpreter, which other tests use, does not."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (triton, str(ROOT), str(ROOT / "kernels"))))
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def output(process: subprocess.Popen) -> str:
    text, _ = process.communicate()
    assert process.returncode == 0
    return text


@pytest.fixture(scope="module", params=TRITONS, ids=["newest", "oldest"])
def compiled(request):
    only = [] if OLDEST else ["--only", *CASES]
    running = [start("-m", "benchmarks.kernels.resources", "--json", "--on", chip, *only, triton=request.param) for chip in TABLE]
    return [row for process in running for row in json.loads(output(process))]


@pytest.mark.slow
def test_kernels_fit_the_chip(compiled):
    assert {row["chip"] for row in compiled} == set(TABLE)
    for row in compiled:
        assert row["registers"] * row["warps"] * 32 <= 65_536, row
        fits(row)


def fits(row):
    assert row["stack"] == row["spills"] == 0, row
    assert row["shared"] <= KIBIBYTES[row["chip"]] * 1024, row


@pytest.mark.slow
def test_the_heads_kernels_fit_every_other_chip_that_has_tiles():
    """Three at the head of Qwen3-4B; all others are in the page."""
    others, cases = sorted(set(_HALF) - {*TABLE, *PAGE_ONLY}), ("bfloat16, plain", "bfloat16, plain, kept")
    rows = json.loads(output(start("-m", "benchmarks.kernels.resources", "--json", "--on", *others, "--only", *cases)))
    three = {*((kernel, cases[0]) for kernel in PRODUCTS), (PRODUCTS[0], cases[1])}
    for chip in others:
        found = [row for row in rows if row["chip"] == chip and (row["kernel"], row["case"]) in three]
        assert len(found) == len(three)
        for row in found:
            assert row["tensor_cores"] != "-", row
            fits(row)


@pytest.mark.slow
def test_products_use_tensor_cores(compiled):
    products = [row for row in compiled if row["kernel"] in PRODUCTS]
    assert {row["kernel"] for row in products} == set(PRODUCTS)
    for row in products:
        assert row["tensor_cores"] == {"sm_80": "HMMA", "sm_90": "HGMMA"}[row["chip"]], row
        if row["chip"] == "sm_90" and not row["case"].startswith("float32"):  # three products in one block do wait for each other
            # A branch that redefines the accumulator makes the assembler wait for every product: no error, half the speed.
            assert row["in_flight"] >= 1, row


@pytest.mark.slow
def test_instructions_per_logit_stay_few(compiled):
    found = {(row["kernel"], row["case"], row["chip"]): row["per_logit"] for row in compiled}
    for (kernel, case), figures in PER_LOGIT.items():
        for chip, figure in figures.items():
            assert 0 < found[kernel, case, chip] <= figure * SLACK, (kernel, case, chip)


@pytest.mark.parametrize("triton", TRITONS, ids=["newest", "oldest"])
def test_a_branch_that_serialises_products_is_seen(triton):
    straight, branched = map(int, output(start(str(Path(__file__).with_name("planted_branch.py")), triton=triton)).split())
    assert straight >= 1
    assert branched == 0


_UNKNOWN = """
import torch
from benchmarks.kernels.ahead import recorded
from benchmarks.kernels.resources import TokenBatch, PolicyLossSettings, policy_loss
values = torch.empty(100, device="meta")
for chip in ("sm_80", "sm_90"):
    for name in ("kind", "correction"):
        settings = PolicyLossSettings(correction="mask")
        object.__setattr__(settings, name, "ppo")
        with recorded(chip):
            try:
                policy_loss.tiled_forward(values, TokenBatch(behaviour_logprob=values, advantage=values), settings)
                print("compiled")
            except Exception as error:
                print("does not know this" in str(error) or "does not know this" in str(error.__cause__))
"""


@pytest.mark.slow
def test_an_unknown_loss_or_correction_does_not_compile():
    assert output(start("-c", _UNKNOWN)).split() == ["True"] * 4
