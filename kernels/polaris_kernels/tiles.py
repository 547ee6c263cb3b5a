"""Fixed tile shapes per architecture, and how matrices must lie for them.

Nothing is tuned at run time: the same call gives the same bits on every machine of a kind.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from polaris_kernels.gain import logit_gain
from polaris_kernels.head import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Shapes of the tiled head product: [block_t, block_v] outputs, block_h deep.

    `group` row blocks share their operands in L2; `resident` programs run at once on each of the device's `processors`; `tma` loads and
    stores by tensor descriptors (sm_90 and above); `merge` rows per program of the row-wise kernels; `gain`: see `logit_gain`;
    `precision`: how Triton multiplies float32 operands.
    """

    block_t: int
    block_v: int
    block_h: int
    group: int
    warps: int
    stages: int
    tma: bool
    resident: int = 1
    processors: int = 132
    merge: int = 128
    gain: float = 1.0
    precision: str = "ieee"

    @property
    def programs(self) -> int:
        """The persistent grid. No result depends on it."""
        return self.resident * self.processors


_COLUMNS = 64
"""Columns of a matrix come in so many, a multiple of every `block_h`."""
_STRIDE = 16
"""Rows that are written begin so many numbers apart, or a multiple of it: Triton stores several numbers at once only then."""
_BYTES = 16

# Chosen by reasoning and by the resource table (no spills); those of sm_90 in half precision have run, others have not been tried.
_HALF = {
    8: Tiles(block_t=128, block_v=128, block_h=64, group=16, warps=8, stages=3, tma=False, resident=2),
    9: Tiles(block_t=128, block_v=256, block_h=64, group=16, warps=8, stages=3, tma=True),
}
_FLOAT32 = {
    8: Tiles(block_t=64, block_v=64, block_h=32, group=16, warps=4, stages=3, tma=False, resident=3, precision="tf32x3"),
    9: Tiles(block_t=128, block_v=128, block_h=32, group=16, warps=8, stages=3, tma=True, precision="tf32x3"),
}
"""Three products of tensor cores for each, block by block: nearer to float64 than one after the other without them (emulated)."""


def tiles_for(hidden: Tensor, head: Head) -> Tiles:
    """Tiles for a head on a CUDA device."""
    major, processors = _device(hidden.device.index or 0)
    return replace(architecture_tiles(major, head), processors=processors)


def architecture_tiles(major: int, head: Head) -> Tiles:
    """Tiles of an architecture by the major number of its compute capability; a newer one takes the newest that is listed."""
    table = _FLOAT32 if head.weight.dtype == torch.float32 else _HALF
    tiles = table[max(listed for listed in table if listed <= major)]
    # A wide tile has no registers for a soft cap's gradient (logits and probabilities at once), for rounding (two dtypes) or, compiled by
    # Triton 3.9, for the mask of a vocabulary of no whole 16s.
    narrow = head.softcap or head.logits_dtype or row_stride(len(head.weight)) > len(head.weight)
    gain = logit_gain(major, head.weight.dtype, head.weight.shape[1])
    return replace(tiles, block_v=min(tiles.block_v, 128) if narrow else tiles.block_v, gain=gain)


def whole_columns(matrix: Tensor) -> Tensor:
    """The matrix with zeros to the right of it up to whole blocks; the sizes of models are whole already, and nothing is copied."""
    return F.pad(matrix, (0, missing)) if (missing := -matrix.shape[1] % _COLUMNS) else matrix


def addressable(matrix: Tensor) -> Tensor:
    """The matrix, or a copy of it where a row does not begin at a multiple of 16 bytes, as tensor descriptors and wide loads need it.

    torch calls a single row contiguous whatever its stride is.
    """
    stride = matrix.stride(0) * matrix.element_size()
    return matrix.clone(memory_format=torch.contiguous_format) if matrix.data_ptr() % _BYTES or stride % _BYTES else matrix


def row_stride(columns: int) -> int:
    """Numbers from one row to the next of a matrix that kernels write."""
    return columns + -columns % _STRIDE


@functools.cache
def _device(index: int) -> tuple[int, int]:
    """Major number of the compute capability and multiprocessors of a CUDA device."""
    properties = torch.cuda.get_device_properties(index)
    return properties.major, properties.multi_processor_count
