"""Causal attention over packed sequences, registered with transformers under the name `polaris_packed`.

Legend: T packed tokens, H query heads, K key-value heads, D head dimension, G sequences of one group, L their padded length.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from polaris.distributed.sequence_parallel import ALONE, SequenceRanks, heads_for_tokens, repeats, tokens_for_heads
from polaris.errors import Refused

NAME = "polaris_packed"
_MAX_PADDING = 0.25
_WITHOUT_EFFECT = {"dropout", "sliding_window", "is_causal", "position_ids", "output_attentions", "output_hidden_states", "use_cache"}
"""Arguments that models pass to their attention and that change nothing here."""
_MEANINGS = {"softcap": "a soft cap on its scores", "s_aux": "attention sinks", "attention_mask": "a mask of its own"}


@dataclass(eq=False)
class PackLayout:
    """Where the sequences of a pack lie. `cu_seqlens` [S + 1] int32: start of each sequence, then T. `ranks` share its tokens.

    Not frozen: torch.compile of torch 2.11 reads the fields of a frozen one, and compiles anew for each number of sequences.
    """

    lengths: list[int]
    cu_seqlens: Tensor
    ranks: SequenceRanks = ALONE

    @property
    def max_length(self) -> int:
        return max(self.lengths)

    @cached_property
    def groups(self) -> tuple[tuple[Tensor, Tensor, int, int], ...]:
        """Without a varlen kernel, sequences of similar length share one attention call: (slots [tokens] int64 in the padded group,
        rows [tokens] int64 in the pack, G, L) per group."""
        device = self.cu_seqlens.device
        groups = _length_groups(self.lengths, self.cu_seqlens.tolist())
        return tuple((slots.to(device), rows.to(device), count, longest) for slots, rows, count, longest in groups)


def pack_layout(lengths: list[int], device: torch.device, ranks: SequenceRanks = ALONE) -> PackLayout:
    """Layout of sequences of these lengths, in this order, whose tokens `ranks` share evenly."""
    cu_seqlens = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    cu_seqlens[1:] = torch.tensor(lengths).cumsum(0)
    return PackLayout(lengths, cu_seqlens.to(device), ranks)


def _length_groups(lengths: list[int], starts: list[int]) -> tuple[tuple[Tensor, Tensor, int, int], ...]:
    """Group sequences longest first so that padding stays below a quarter of each group."""
    groups = []
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        longest, used, count = lengths[order[0]], 0, 0
        while count < len(order) and used + lengths[order[count]] >= (1 - _MAX_PADDING) * longest * (count + 1):
            used += lengths[order[count]]
            count += 1
        members, order = order[:count], order[count:]
        slots = torch.cat([torch.arange(lengths[i]) + g * longest for g, i in enumerate(members)])
        rows = torch.cat([torch.arange(lengths[i]) + starts[i] for i in members])
        groups.append((slots, rows, count, longest))
    return tuple(groups)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: PackLayout,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """Attention of query [1, H, T, D] over key [1, K, T, D] and value [1, K, T, D] within each sequence -> [1, T, H, D].

    Ranks that share a pack give and get the T / P tokens that they have; in between, each attends over all T with H / P of the heads.
    The varlen kernels of CUDA take half precision only. There is no dropout.

    Raises:
        Refused: the model needs another attention.
    """
    check_asked(attention_mask, layout.max_length, asked)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    ranks = layout.ranks
    if ranks.size > 1:
        copies = repeats(k.shape[1], ranks.size)
        q, k, v = (heads_for_tokens(x, ranks) for x in (q, k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)))
    varlen = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)
    out = cuda_attention(q, k, v, layout, scaling) if varlen else _grouped_attention(q, k, v, layout, scaling)
    return (tokens_for_heads(out, ranks) if ranks.size > 1 else out)[None], None


def check_asked(attention_mask: Tensor | None, longest: int, asked: dict[str, Any]) -> None:
    """Raise `Refused` if a model needs more than causal attention within sequences of at most `longest` tokens."""
    window = asked.get("sliding_window")
    if window is not None and window < longest:
        raise Refused(
            f"the model attends to a sliding window of {window} tokens, which Polaris does not support, and sequences of {longest} tokens "
            f"are longer; keep data.max_prompt_tokens and the longest max_response_tokens together at {window} or less"
        )
    extra = {name: value for name, value in asked.items() if name not in _WITHOUT_EFFECT and value is not None}
    if asked.get("is_causal") is False:
        extra["is_causal"] = False
    extra |= {} if attention_mask is None else {"attention_mask": attention_mask}
    if extra:
        named = ", ".join(_MEANINGS.get(name, name) for name in sorted(extra))
        raise Refused(f"the model's attention is more than causal attention ({named}), which Polaris does not have; take another model")


def _grouped_attention(q: Tensor, k: Tensor, v: Tensor, layout: PackLayout, scaling: float | None) -> Tensor:
    """Right-padded causal attention per group. Padding comes after all valid queries, so no mask is needed."""
    out = torch.empty_like(q)
    for slots, rows, count, length in layout.groups:
        padded_q, padded_k, padded_v = (
            x.new_zeros(count * length, *x.shape[1:])
            .index_copy(0, slots, x.index_select(0, rows))
            .view(count, length, *x.shape[1:])
            .transpose(1, 2)
            for x in (q, k, v)
        )
        attended = F.scaled_dot_product_attention(padded_q, padded_k, padded_v, is_causal=True, scale=scaling, enable_gqa=True)
        out = out.index_copy(0, rows, attended.transpose(1, 2).flatten(0, 1).index_select(0, slots))
    return out


def cuda_attention(q: Tensor, k: Tensor, v: Tensor, layout: PackLayout, scaling: float | None) -> Tensor:
    """torch's attention over packs [T, H, D], by the FlashAttention that `polaris.model.flash` has chosen."""
    from torch.nn.attention.varlen import varlen_attn

    cu, longest = layout.cu_seqlens, layout.max_length
    repeats = q.shape[1] // k.shape[1]
    if "enable_gqa" not in _varlen_options():
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    options: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in _varlen_options() else {}
    options |= {"window_size": (-1, 0)} if "window_size" in _varlen_options() else {"is_causal": True}
    attended: Any = varlen_attn(q, k, v, cu, cu, longest, longest, scale=scaling, **options)
    return attended


@cache
def _varlen_options() -> frozenset[str]:
    """Keyword options of this torch's `varlen_attn`; 2.11 and 2.13 name causality differently."""
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
