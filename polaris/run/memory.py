"""Do trainer and rollout engine fit on one GPU together? Arithmetic before anything is loaded."""

from __future__ import annotations

import math

from transformers import PreTrainedConfig

from polaris.errors import Refused
from polaris.model.rope import head_size

_RESERVE = 3 << 30
"""Bytes of CUDA context, NCCL buffers and fragmentation."""
_GIB = 1 << 30


def activation_bytes(model: PreTrainedConfig, tokens: int, itemsize: int, recompute: bool) -> int:
    """Least bytes that forward and backward of `tokens` tokens take beside weights, gradients and moments.

    The layers' inputs and what one layer keeps for its backward (with `recompute`), or what all of them keep; and the gathered head with
    its gradient. What a layer keeps is counted for fused norms and MLPs (inputs, queries, keys, values, gate, up and their product);
    without fused modules it is up to twice as much. `itemsize` is that of the compute dtype in bytes.
    """
    heads, inner = model.num_attention_heads, getattr(model, "intermediate_size", None) or 4 * model.hidden_size
    attention = (2 * heads + 2 * getattr(model, "num_key_value_heads", heads)) * head_size(model)
    layer = tokens * (3 * model.hidden_size + attention + 3 * inner)
    inputs = model.num_hidden_layers * tokens * model.hidden_size
    return itemsize * ((inputs + layer if recompute else model.num_hidden_layers * layer) + 2 * model.vocab_size * model.hidden_size)


def check_memory(parameters: int, ranks: int, fraction: float, total: int, activations: int = 0, frozen: int = 0) -> None:
    """Raise `Refused` where `total` bytes of each rank's GPU are too few.

    While the engine samples with its `fraction` (0: it takes what is left), the trainer keeps its shard of float32 weights and both
    moments (12 bytes per parameter that is trained), and of the model beside adapters (`frozen` bytes over all ranks); while it trains,
    the engine sleeps, and gradients (4 bytes) and `activations` come on top.
    """
    kept, trained = ((each * parameters + frozen) / ranks + _RESERVE for each in (12, 16))
    trained += activations
    if activations + _RESERVE >= total:
        raise Refused(
            f"the activations of one pack need {activations / _GIB:.0f} GiB of each GPU, which has {total / _GIB:.0f}; lower "
            'trainer.tokens_per_pack and the longest max_response_tokens, or set memory.activations = "recompute"'
        )
    needed = (16 * parameters + frozen) // max(1, total - _RESERVE - activations) + 1
    if trained >= total:
        raise Refused(
            f"weights, gradients and optimizer of {parameters / 1e9:.1f}B parameters on {ranks} ranks and the activations of one pack need "
            f"{trained / _GIB:.0f} GiB of each GPU, which has {total / _GIB:.0f}; start {needed} ranks or more, or lower "
            "trainer.tokens_per_pack and the longest max_response_tokens"
        )
    largest = math.floor(20 * (1 - kept / total)) / 20
    share = f"set it to {largest:g} or less, or start" if largest > 0 else "start"
    if fraction * total + kept > total:
        raise Refused(
            f"rollout.gpu_memory_fraction = {fraction:g} leaves too little beside the {kept / _GIB:.0f} GiB that the trainer keeps of each "
            f"GPU's {total / _GIB:.0f}; {share} more ranks"
        )
