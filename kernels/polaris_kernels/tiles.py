"""Fixed tile shapes per architecture, and how matrices must lie for them.

Nothing is tuned at run time: the same call gives the same bits on every machine of a kind.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from polaris_kernels.gain import logit_gain
from polaris_kernels.head import Head
from polaris_kernels.products import HALF


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

# Chosen by reasoning and by the resource table: no spills, shared memory within the chip's. Those of sm_90 in half precision have run.
_AMPERE = Tiles(block_t=128, block_v=128, block_h=64, group=16, warps=8, stages=3, tma=False)
_HOPPER = Tiles(block_t=128, block_v=256, block_h=64, group=16, warps=8, stages=3, tma=True)
_HALF = {
    "sm_80": replace(_AMPERE, resident=2),
    "sm_89": _AMPERE,
    "sm_90": _HOPPER,
    "sm_100": _HOPPER,
    "sm_120": _AMPERE,
    "gfx942": replace(_AMPERE, stages=2),
}
_SMALL = Tiles(block_t=64, block_v=64, block_h=32, group=16, warps=4, stages=3, tma=False, resident=3, precision="tf32x3")
_LARGE = Tiles(block_t=128, block_v=128, block_h=32, group=16, warps=8, stages=3, tma=True, precision="tf32x3")
_FLOAT32 = {
    "sm_80": _SMALL,
    "sm_89": replace(_SMALL, resident=2),
    "sm_90": _LARGE,
    "sm_100": _LARGE,
    "sm_120": replace(_SMALL, resident=2),
    "gfx942": replace(_SMALL, stages=2, precision="ieee"),
}
"""Three products of tensor cores for each, block by block: nearer to float64 than one after the other without them (emulated)."""


def tiles_for(hidden: Tensor, head: Head) -> Tiles:
    """Tiles for a head on a CUDA or ROCm device."""
    chip, processors = _device(hidden.device.index or 0)
    return replace(architecture_tiles(chip, head), processors=processors)


def architecture_tiles(chip: str, head: Head) -> Tiles:
    """Tiles of an architecture by its name, as "sm_90" or "gfx942"; one that is not listed takes those of `_listed`."""
    tiles = (_FLOAT32 if head.weight.dtype == torch.float32 else _HALF)[_listed(chip)]
    # A wide tile has no registers for a soft cap's gradient (logits and probabilities at once), for rounding (two dtypes) or, compiled by
    # Triton 3.9, for the mask of a vocabulary of no whole 16s. Logits are float32 as they are: only half precision rounds them.
    narrow = head.softcap or head.logits_dtype in HALF or row_stride(len(head.weight)) > len(head.weight)
    gain = logit_gain(chip, head.weight.dtype, head.weight.shape[1])
    return replace(tiles, block_v=min(tiles.block_v, 128) if narrow else tiles.block_v, gain=gain)


@functools.cache
def _listed(chip: str) -> str:
    """The chip, or the next smaller one of its maker that is listed, with a warning: its kernels compile, but nobody chose its tiles.

    Raises:
        ValueError: there is none.
    """
    if chip in _HALF:
        return chip
    # Those of AMD's data-centre chips begin with gfx9; what begins otherwise is of another kind.
    family = next((family for family in ("sm_", "gfx9") if chip.startswith(family)), chip)

    def number(name: str) -> int:
        return int(name[len(family) :] or "0", 16)

    smaller = [name for name in _HALF if name.startswith(family) and number(name) < number(chip)]
    if not smaller:
        raise ValueError(f"polaris_kernels has no tiles for {chip}, only for {', '.join(_HALF)} and newer ones: use tensors on the CPU")
    found = max(smaller, key=number)
    warnings.warn(f"polaris_kernels has no tiles of its own for {chip}: it takes those of {found}", stacklevel=2)
    return found


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
def _device(index: int) -> tuple[str, int]:
    """Name of the architecture and multiprocessors of a device."""
    properties = torch.cuda.get_device_properties(index)
    chip = properties.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{properties.major}{properties.minor}"
    return chip, properties.multi_processor_count
