"""The model of cycles in `benchmarks/kernels/cycles.py`, against cases counted by hand and the sizes that the operations choose."""

import pytest
import torch

from benchmarks.kernels import cycles
from benchmarks.kernels.cycles import BEFORE, NOW, RATES, Chip, H, Kernel, T, V, Work, linear_policy_loss, pieces, product, waves
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob.tiled import _slab_columns
from polaris_kernels.linear_policy_loss.tiled import chunk_rows
from polaris_kernels.tiles import architecture_tiles

CHIP = Chip(flops=790e12)


def test_busy_tensor_cores_take_the_time_of_a_large_product():
    assert pytest.approx(790e12 / (4096 * 132)) == CHIP.clock
    least, most = CHIP.seconds(product(T, V, H, CHIP))
    assert least == pytest.approx(2 * T * V * H / 790e12)
    assert most == pytest.approx(least, rel=0.001)  # 1,440 whole waves, but for half a tile of columns


def test_waves():
    assert waves(T, V, CHIP) == 1440
    assert (waves(3328, H, CHIP), waves(4096, H, CHIP)) == (2, 3)  # 260 and 320 tiles on 132 multiprocessors
    assert waves(1, 1, CHIP) == 1
    assert pieces(T, 16_000) == [16_000, 16_000, 8960]


def test_cycles_lost_per_tile():
    assert Kernel(serial=1700).lost() == pytest.approx(4000)
    assert Kernel(serial=1700, nested=True, stores=300).lost() == pytest.approx(5600)
    assert Kernel(serial=100).lost() == 2048  # 32,768 exponentials, 16 per cycle
    # A target of one of 128 rows lies in a given one of 594 tiles 194 times of 1,000.
    assert Kernel(serial=1700, seldom=1000).lost() == pytest.approx(4000 + 0.194 * 1000 * 2 / 0.85, rel=0.001)
    assert Kernel(serial=1700).cycles(T, V, CHIP) == pytest.approx(1440 * (40 * 1024 + 4000))


def test_a_product_of_one_tile_too_many_takes_a_wave_more():
    full, more = (product(128 * tiles, 256, 640, CHIP) for tiles in (132, 133))
    assert full.products == full.whole_waves == 10_240
    assert more.products == pytest.approx(10_240 * 133 / 132)
    assert more.whole_waves == 20_480


def test_seconds_at_least_and_at_most():
    work = Work(kernels=CHIP.clock) + Work(products=CHIP.clock, whole_waves=2 * CHIP.clock, passes=4.2e12, sums=2.1e12)
    assert CHIP.seconds(work) == pytest.approx((3.0, 4.5))


def test_the_rate_at_which_work_takes_so_long():
    work = linear_policy_loss(BEFORE, CHIP)
    for end, flops in enumerate(cycles.rate_of(0.153, work, CHIP)):
        assert Chip(flops=flops).seconds(work)[end] == pytest.approx(0.153)


@pytest.mark.parametrize("flops", RATES)
def test_nothing_is_faster_than_its_products(flops):
    for operation, bound, before, now in cycles.predictions(Chip(flops=flops)):
        assert bound < now[0] <= now[1] < before[1], operation
        assert now[0] < before[0] <= before[1], operation


def test_bytes_and_instructions_of_logits():
    (_, of_bytes, issue), backward = cycles.from_logits(NOW, CHIP, 2e9)
    assert of_bytes == pytest.approx(2 * T * V / 4.2e12)
    assert issue == pytest.approx(7.81 * T * V / (128 * 0.85 * 132 * 2e9))
    assert backward[1] == pytest.approx(2 * of_bytes)


def test_the_model_cuts_the_work_as_the_operations_do():
    hidden = torch.empty(T, H, dtype=torch.bfloat16, device="meta")
    head = Head(weight=torch.empty(V, H, dtype=torch.bfloat16, device="meta"))
    tiles = architecture_tiles("sm_90", head)
    assert (tiles.block_t, tiles.block_v, tiles.block_h, tiles.processors) == (128, 256, 64, 132)
    assert _slab_columns(hidden, V, tiles) == NOW.columns
    assert chunk_rows(tiles, H, 2 * V) == NOW.chunk
