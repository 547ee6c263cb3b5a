"""The emulated tensor core, against sums worked out by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kernels.tensor_cores import AMPERE, AMPERE_TF32, FMA, HOPPER, HOPPER_TF32, TensorCore, dot, dot_in_three

HOPPER_TO_NEAREST = TensorCore(products=16, fraction=25, nearest=True)


def add(core, total, *products):
    """One step: the products, each a power of two or a pair of factors, on top of the total."""
    left = torch.zeros(core.products, dtype=torch.float64)
    right = torch.zeros(core.products, dtype=torch.float64)
    for place, product in enumerate(products):
        left[place], right[place] = product if isinstance(product, tuple) else (product, 1.0)
    return float(dot(core, left, right, torch.tensor(total)))


@pytest.mark.parametrize(
    ("core", "total", "products", "sum_"),
    [
        # Float32 cannot hold 1 + 1.5 * 2^-24: toward zero, or to the nearest.
        (HOPPER, 1.0, [1.5 * 2**-24], 1.0),
        (HOPPER_TO_NEAREST, 1.0, [1.5 * 2**-24], 1 + 2**-23),
        (HOPPER, -1.0, [-1.5 * 2**-24], -1.0),
        # Products add up before the sum is cut; one by one they would all be lost.
        (HOPPER, 1.0, [2**-25] * 16, 1 + 2**-21),
        (AMPERE, 1.0, [2**-24] * 8, 1 + 2**-21),
        # What lies further below the largest addend is lost before the sum.
        (HOPPER, 1.0, [2**-26] * 16, 1.0),
        (AMPERE, 1.0, [2**-25] * 8, 1.0),
        # 1.5 * 1.5 = 2.25 is aligned by 2^0, the sum of its factors' exponents, not by its own 2^1.
        (HOPPER, 0.0, [(1.5, 1.5)] + [2**-25] * 8, 2.25 + 2**-22),
        # The total may vanish; what was aligned to it stays cut.
        (HOPPER, 2.0**24, [-(2.0**24), 0.75], 0.5),
        (AMPERE, 2.0**24, [-(2.0**24), 0.75], 0.0),
        (HOPPER, 0.0, [], 0.0),
        (HOPPER_TF32, 0.0, [1.0, 2**-23, -1.0], 2**-23),
    ],
)
def test_one_step_by_hand(core, total, products, sum_):
    assert add(core, total, *products) == sum_


def test_steps_follow_each_other():
    """1, then eight times 2^-24 in two steps of Ampere: four of them reach 2^-22, of the other step's four too."""
    left = torch.tensor([1.0, 2**-24, 2**-24, 2**-24, 2**-24, 0, 0, 0] + [2**-24] * 3 + [0.0] * 5)
    assert float(dot(AMPERE, left, torch.ones(16))) == 1 + 2**-22 + 2**-23  # 3 * 2^-24 is cut to 2^-23
    assert float(dot(HOPPER, left, torch.ones(16))) == 1 + 2**-22 + 2**-23  # 7 * 2^-24, cut once


@pytest.mark.parametrize(("core", "loss"), [(HOPPER, 0.27), (AMPERE, 0.18)])
def test_a_growing_sum_loses_in_proportion_to_itself_and_to_its_steps(core, loss):
    """Per step by `loss` times 2^-24 of the final sum."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 300, 2560, generator=generator).bfloat16().float()
    left = (0.05 * left + 0.01 * right).bfloat16()  # sums of about 25
    exact = (left.double() * right.double()).sum(-1)
    relative = (dot(core, left, right) - exact) / exact
    assert abs(float(relative.mean()) * 2**24 / (2560 / core.products) + loss) < 0.02


def test_broadcasting_is_a_matrix_product():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(5, 64, generator=generator).half(), torch.randn(7, 64, generator=generator).half()
    products = dot(HOPPER, left[:, None], right)
    assert products.shape == (5, 7)
    torch.testing.assert_close(products, left.double() @ right.double().T, rtol=1e-5, atol=1e-5)
    assert torch.equal(products, products.float().double())


@pytest.mark.parametrize("core", [HOPPER_TF32, AMPERE_TF32])
def test_three_tf32_products_are_nearer_than_a_chain_of_float32_additions(core):
    """Sums of about 25 over 2,560 products; why float32 heads take them."""
    left, right = torch.randn(2, 100, 2560, generator=torch.Generator().manual_seed(0))
    left = 0.05 * left + 0.01 * right
    exact = (left.double() * right.double()).sum(-1)
    three, chain = ((found - exact).square().mean().sqrt() for found in (dot_in_three(core, left, right, 32), dot(FMA, left, right)))
    assert three < chain / 2
    assert three < 1e-5
