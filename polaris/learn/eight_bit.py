"""AdamW whose moments take a byte each: codes in blocks of 256 values, each with a scale in float32 (Dettmers et al. 2021), by torchao.

A block's scale is its largest absolute value, and a code the place of value / scale in a fixed table of 256 numbers. Shards of fewer than
4,096 values, or of a number that blocks do not divide, keep float32. torchao is imported only where such an optimizer is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from polaris.config.training import OptimizerConfig
from polaris.errors import Refused

BLOCK = 256
_PIECE = 4096 * BLOCK
"""Values that are rounded at a time: torchao's search for codes needs some 40 bytes for each."""


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise `Refused` unless what the optimizer needs is installed."""
    if config.name != "adamw8bit":
        return
    try:
        from torchao.optim import AdamW8bit  # noqa: F401
    except ImportError as error:
        raise Refused(
            f"optimizer.name = \"adamw8bit\" needs torchao 0.18, which cannot be imported ({error}); `pip install 'polaris-rl[8bit]'`, or "
            'set optimizer.name to "adamw"'
        ) from None


def adamw_8bit(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """torchao's AdamW with moments that are there from the start, as its step leaves those of zeros."""
    from torchao.optim import AdamW8bit

    optimizer = AdamW8bit(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, block_size=BLOCK)
    for parameter in (one for group in groups for one in group["params"]):
        moments = {"exp_avg": optimizer._new_buffer(parameter, True), "exp_avg_sq": optimizer._new_buffer(parameter, False)}
        for moment in filter(is_coded, moments.values()):
            zeros = _coded_like(_local(moment), torch.zeros(BLOCK))
            _local(moment).codes.fill_(zeros.codes[0])
            _local(moment).scale.fill_(zeros.scale[0])
        optimizer.state[parameter] = {"step": torch.zeros((), dtype=torch.float32), **moments}
    return optimizer


def is_coded(value: Tensor) -> bool:
    """Whether the values on this rank are 8-bit codes; torchao's class is not asked for, since that would import it."""
    return hasattr(_local(value), "codes")


def parts(value: Tensor) -> list[Tensor]:
    """What takes memory on this rank: codes and scales, or the tensor itself."""
    local: Any = _local(value)
    return [local.codes, local.scale] if is_coded(value) else [local]


@torch.no_grad()  # otherwise `DTensor.to_local` gives a view of what is to be changed
def own(copy: Tensor) -> None:
    """Let a copy by `Tensor.to` have codes of its own; on a CPU torchao's shares them with the original."""
    if is_coded(copy):
        local = _local(copy)
        local.codes, local.scale = local.codes.clone(), local.scale.clone()


def decoded(local: Any) -> Tensor:
    """A rank's values in float32, in host memory.

    Rounding them to 8 bits again gives the same codes and scales. After torchao's own `dequantize` it would not: its table ends at 1 and
    -0.993, and a block whose largest value is negative would have another scale. That value is -scale, and so is here what has its code.
    """
    codes, scale, table = (part.cpu() for part in (local.codes, local.scale, local.qmap))
    if local.signed:
        table = torch.cat([-torch.ones(1), table[1:]])
    values = torch.empty(codes.shape, dtype=torch.float32)
    for piece, coded, largest in zip(_pieces(values), _pieces(codes), scale.split(_PIECE // BLOCK), strict=True):
        torch.mul(table[coded.int()].view(-1, BLOCK), largest.view(-1, 1), out=piece.view(-1, BLOCK))
    return values


def encode(local: Any, values: Tensor) -> None:
    """Write values in host memory into 8-bit ones, wherever these are."""
    for codes, scale, piece in zip(_pieces(local.codes), local.scale.split(_PIECE // BLOCK), _pieces(values), strict=True):
        coded = _coded_like(local, piece)
        codes.copy_(coded.codes)
        scale.copy_(coded.scale)


def float32_targets(moments: Mapping[str, dict[str, Tensor]], weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint is read into: the moments themselves, and in the place of 8-bit ones float32 in host memory."""
    return {
        name: {kind: weights[name].detach().to("cpu", copy=True) if is_coded(value) else value for kind, value in state.items()}
        for name, state in moments.items()
    }


def take(moments: Mapping[str, dict[str, Tensor]], read: Mapping[str, dict[str, Tensor]]) -> None:
    """Round what was read into the 8-bit moments."""
    for name, state in moments.items():
        for kind, value in state.items():
            if is_coded(value):
                encode(_local(value), _local(read[name][kind]))


def _coded_like(local: Any, values: Tensor) -> Any:
    """The values [a multiple of BLOCK] in host memory, rounded."""
    coded = type(local).zeros(values.shape, local.signed, BLOCK, values.device)
    return coded.copy_(values)


def _pieces(values: Tensor) -> Sequence[Tensor]:
    return values.view(-1).split(_PIECE)


def _local(value: Tensor) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value
