"""Which tiles a device gets, and which matrices are copied because a tile could not be loaded from them."""

import pytest
import torch

from polaris_kernels.head import Head
from polaris_kernels.tiles import addressable, architecture_tiles, row_stride, whole_columns


def head(dtype=torch.bfloat16, vocabulary=64, **options):
    return Head(weight=torch.zeros(vocabulary, 8, dtype=dtype), **options)


@pytest.mark.parametrize(("major", "listed"), [(8, 8), (9, 9), (10, 9), (12, 9)])
@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.bfloat16, {8: 128, 9: 256}), (torch.float16, {8: 128, 9: 256}), (torch.float32, {8: 64, 9: 128})]
)
def test_a_newer_architecture_takes_the_newest_that_is_listed(major, listed, dtype, width):
    tiles = architecture_tiles(major, head(dtype))
    assert tiles.block_v == width[listed]
    assert tiles.tma == (listed == 9)


@pytest.mark.parametrize("options", [{"softcap": 5.0}, {"logits_dtype": torch.bfloat16}, {"vocabulary": 65}])
def test_tiles_are_narrow_where_a_wide_one_has_no_registers(options):
    assert architecture_tiles(9, head(**options)).block_v == 128


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
