"""Fixed tile shapes per architecture. Nothing is tuned at run time: the same call gives the same bits on every machine of a kind."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polaris_kernels.head import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Shapes of the tiled head product: [block_t, block_v] outputs, block_h deep; `strip` neighbouring vocabulary tiles per work item.

    `group` row blocks share their operands in L2; `programs` is the size of the persistent grid; `tma` loads by tensor
    descriptors (sm_90 and above); `merge` rows per program of the row-wise kernels.
    """

    block_t: int
    block_v: int
    block_h: int
    strip: int
    group: int
    programs: int
    warps: int
    stages: int
    tma: bool
    merge: int = 128


# Chosen by reasoning and by the resource table (no spills); not measured on a GPU yet.
_HALF = {
    8: Tiles(block_t=128, block_v=128, block_h=64, strip=8, group=16, programs=216, warps=8, stages=3, tma=False),
    9: Tiles(block_t=128, block_v=256, block_h=64, strip=4, group=16, programs=132, warps=8, stages=3, tma=True),
}
_FLOAT32 = {
    8: Tiles(block_t=32, block_v=64, block_h=32, strip=16, group=16, programs=432, warps=4, stages=3, tma=False),
    9: Tiles(block_t=32, block_v=64, block_h=32, strip=16, group=16, programs=528, warps=4, stages=3, tma=False),
}


def tiles_for(hidden: Tensor, head: Head) -> Tiles:
    """Tiles for a head on a CUDA device. Tensor descriptors need rows of whole 16-byte units; others take sm_80's plain loads."""
    aligned = all(m.stride(0) * m.element_size() % 16 == 0 and m.data_ptr() % 16 == 0 for m in (hidden, head.weight))
    return architecture_tiles(_major(hidden.device.index or 0) if aligned else 8, head)


def architecture_tiles(major: int, head: Head) -> Tiles:
    """Tiles of an architecture by the major number of its compute capability; a newer one takes the newest that is listed."""
    table = _FLOAT32 if head.weight.dtype == torch.float32 else _HALF
    tiles = table[max(listed for listed in table if listed <= major)]
    # The gradient of a soft cap needs logits and probabilities at once, which a wide tile has no registers for.
    return replace(tiles, block_v=min(tiles.block_v, 128)) if head.softcap else tiles


@functools.cache
def _major(device: int) -> int:
    return torch.cuda.get_device_capability(device)[0]
