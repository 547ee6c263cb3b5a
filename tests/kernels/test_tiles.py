"""Which tiles a device gets, and which matrices are copied because a tile could not be loaded from them."""

import warnings
from dataclasses import replace

import pytest
import torch
from head_by_kernels import tiled

from polaris_kernels.head import Head
from polaris_kernels.tiles import Tiles, _listed, addressable, architecture_tiles, row_stride, whole_columns


def head(dtype=torch.bfloat16, vocabulary=64, **options):
    return Head(weight=torch.zeros(vocabulary, 8, dtype=dtype), **options)


CHIPS = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
SHARED_MEMORY = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64}


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_listed_chip_holds_the_operands_of_its_stages(chip, dtype, recwarn):
    tiles = architecture_tiles(chip, head(dtype))
    buffers = tiles.stages if chip != "gfx942" else tiles.stages - 1  # AMD's loads wait in registers
    operands = (tiles.block_t + tiles.block_v) * tiles.block_h * dtype.itemsize * buffers
    assert operands <= SHARED_MEMORY[chip] * 1024
    assert tiles.tma == (chip in ("sm_90", "sm_100"))
    assert not recwarn.list


@pytest.mark.parametrize(("chip", "listed"), [("sm_86", "sm_80"), ("sm_103", "sm_100"), ("sm_121", "sm_120"), ("gfx950", "gfx942")])
def test_another_chip_takes_the_next_smaller_one_and_says_so_once(chip, listed):
    _listed.cache_clear()
    with pytest.warns(UserWarning, match=f"no tiles of its own for {chip}: it takes those of {listed}"):
        tiles = architecture_tiles(chip, head())
    assert replace(tiles, gain=1.0) == replace(architecture_tiles(listed, head()), gain=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        architecture_tiles(chip, head())


@pytest.mark.parametrize("chip", ["sm_75", "gfx90a", "gfx1100"])
def test_a_chip_below_all_is_refused(chip):
    with pytest.raises(ValueError, match=f"no tiles for {chip}, only for sm_80, .* use tensors on the CPU"):
        architecture_tiles(chip, head())


@pytest.mark.parametrize("options", [{"softcap": 5.0}, {"logits_dtype": torch.bfloat16}, {"vocabulary": 65}])
def test_tiles_are_narrow_where_a_wide_one_has_no_registers(options):
    assert architecture_tiles("sm_90", head()).block_v == 256
    assert architecture_tiles("sm_90", head(**options)).block_v == 128


@pytest.mark.parametrize("logits_dtype", [torch.float32, torch.float64])
def test_a_float32_request_takes_the_wide_tile_and_its_bits(logits_dtype):
    """The logits are float32 as they are."""
    assert architecture_tiles("sm_90", head(logits_dtype=logits_dtype)) == architecture_tiles("sm_90", head())
    hidden, weight = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = (torch.arange(20), torch.full((20,), 0.7), torch.ones(2, 20))
    tiles = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
    plain, asked = (tiled(hidden, weight, *values, tiles, logits_dtype=dtype) for dtype in (None, logits_dtype))
    assert all(torch.equal(a, b) for a, b in zip(plain, asked, strict=True))


def test_matrices_whose_rows_begin_at_16_bytes_are_taken_as_they_are():
    whole = torch.arange(40.0).view(5, 8)
    assert addressable(whole) is whole
    assert addressable(whole[:, :4]).data_ptr() == whole.data_ptr(), "a row is 32 bytes behind the other"
    assert addressable(whole[1:]).data_ptr() == whole[1:].data_ptr()


@pytest.mark.parametrize(
    "matrix",
    [
        torch.arange(36.0).view(6, 6)[:, :4],
        torch.arange(41.0)[1:].view(5, 8),
        torch.arange(36.0).view(6, 6)[2:3, :4],
        torch.arange(24.0).half().view(2, 12),
    ],
    ids=["stride", "first byte", "one row", "half precision"],
)
def test_others_are_copied(matrix):
    ours = addressable(matrix)
    assert torch.equal(ours, matrix)
    assert ours is not matrix
    assert ours.is_contiguous()
    assert ours.data_ptr() % 16 == 0


def test_columns_are_filled_up_with_zeros_to_whole_blocks():
    matrix = torch.ones(3, 65)
    assert whole_columns(matrix[:, :64]).shape == (3, 64)
    assert whole_columns(matrix).shape == (3, 128)
    assert torch.equal(whole_columns(matrix)[:, :65], matrix)
    assert whole_columns(matrix)[:, 65:].eq(0).all()
    assert [row_stride(columns) for columns in (1, 16, 17, 64)] == [16, 16, 32, 64]
