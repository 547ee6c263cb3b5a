"""A KV cache with one slot per running sequence, each at its own length, and the attention that reads it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import AttentionMaskInterface

from polaris.model.attention import check_asked

ATTENTION = "polaris_slots"
GROWTH = 64


class KVSlots(Cache):
    """Keys and values [2, layers, slots, KV heads, positions, head size]; a sequence's positions are 0, 1, ... in its slot.

    The first keys set KV heads and head size.

    Old contents of a slot are masked, not erased: entries beyond a sequence's length are finite but meaningless.
    """

    def __init__(self, config: PretrainedConfig, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.count = count
        self._store = torch.zeros(2, config.num_hidden_layers, count, 0, 0, 0, dtype=dtype, device=device)
        self._rows = torch.arange(count, device=device)
        self._columns = self._rows[:0]
        self._width = 0

    def begin_step(self, lengths: torch.Tensor) -> torch.Tensor:
        """Prepare one decoding step of slots 0..n-1, which hold `lengths` [n] positions; returns the additive mask [n, 1, 1, width]."""
        self._columns, self._width = lengths, int(lengths.max()) + 1
        hidden = torch.arange(self._width, device=lengths.device) > lengths[:, None]
        return self._store.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the model's attention: append [n, KV heads, 1, head size], return all [n, KV heads, width, head size]."""
        self._reserve(self._width, key_states)
        count = len(self._columns)
        rows, (keys, values) = self._rows[:count], self._store[:, layer_idx]
        keys[rows, :, self._columns] = key_states[:, :, 0]
        values[rows, :, self._columns] = value_states[:, :, 0]
        return keys[:count, :, : self._width], values[:count, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions of the longest sequence before this step, for models that ask."""
        return self._width - 1

    def fill(self, slots: torch.Tensor, prefix: DynamicCache, sources: torch.Tensor) -> None:
        """Copy the rows `sources` [m] of a prefilled cache into `slots` [m], from position 0."""
        length = prefix.get_seq_length()
        for layer, entry in enumerate(prefix.layers):
            assert isinstance(entry, DynamicLayer)
            assert entry.keys is not None
            assert entry.values is not None
            self._reserve(length, entry.keys)
            self._store[0, layer, slots, :, :length] = entry.keys[sources]
            self._store[1, layer, slots, :, :length] = entry.values[sources]

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy slots `sources` over slots `targets`."""
        used = self._store[:, :, :, :, : self._width]
        used[:, :, targets] = used[:, :, sources]

    def _reserve(self, positions: int, keys: torch.Tensor) -> None:
        """Allocate `positions` positions, with the KV heads and head size of `keys` [n, KV heads, width, head size]."""
        old, (_, heads, _, size) = self._store, keys.shape
        if positions > old.shape[4]:
            self._store = old.new_zeros(*old.shape[:3], heads, max(positions + GROWTH, 2 * old.shape[4]), size)
            self._store[:, :, :, : old.shape[3], : old.shape[4], : old.shape[5]] = old


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[torch.Tensor, None]:
    """Prefill: causal, right padding needs no mask. Decoding (mask given): one query per sequence over its slot.

    Queries that share a KV head are passed as query positions of that head, so that no keys are copied.
    """
    check_asked(None, key.shape[2], asked)
    if attention_mask is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(rows, 1, heads, -1), None


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
