"""Which tokens a sampler left to choose from, for trainers whose engine cuts the distribution off (top-k, top-p, min-p).

The engine's log-probs are those of the tokens that it kept, renormalised; a trainer that scores the whole vocabulary compares them with
another distribution. So the softmax is taken over the kept tokens alone (DeepSeek-V3.2, arXiv 2512.02556, section 3.1). A mask is
packed: bit j % 32 of word j // 32 of a token's row says whether token j was kept, as in the bitmasks of xgrammar and of engines that use
it. That is V / 8 bytes a token, whatever was kept; engines return ids, of which `pack_sampling_mask` makes it.

Legend: T tokens, V vocabulary, W = ceil(V / 32) words, M ids in all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORD = 32


def pack_sampling_mask(ids: Tensor, counts: Tensor, vocabulary: int, columns: tuple[int, int] | None = None) -> Tensor:
    """[T, W] int32 from the ids [M] that the sampler kept, token after token, and how many it kept of each, [T].

    A token whose count is 0 was sampled from the whole vocabulary. Ids may come in any order, and more than once. vLLM's SamplingMask has
    these ids, and offsets of which `counts = offsets.diff()`; of torch's `top = logits.topk(k)` they are `top.indices.flatten()` and
    `torch.full((T,), k)`. `columns` are the first of the vocabulary and the one behind the last that the mask is about, as a rank of a
    `group` needs it for its rows of the head: W is then that of their number.

    >>> pack_sampling_mask(torch.tensor([1, 33, 34]), torch.tensor([3, 0]), 40)
    tensor([[ 2,  6],
            [-1, -1]], dtype=torch.int32)

    Raises:
        ValueError: counts that do not sum to the number of ids; ids or columns outside of [0, V). Looks at values: waits for a GPU.
    """
    if ids.ndim != 1 or counts.ndim != 1 or counts.lt(0).any() or int(counts.sum()) != len(ids):
        raise ValueError(
            f"counts sum to {int(counts.sum())}, but there are {len(ids)} ids: pass flat ids [M], and the ids of each token [T]"
        )
    if len(ids) and not (ids.min() >= 0 and ids.max() < vocabulary):
        raise ValueError(f"ids span {int(ids.min())} to {int(ids.max())}, outside [0, {vocabulary})")
    if columns is not None and not 0 <= columns[0] <= columns[1] <= vocabulary:
        raise ValueError(f"columns = {columns} are not within [0, {vocabulary}]: pass the first of this rank and the one behind its last")
    first, last = columns or (0, vocabulary)
    words, whole = math.ceil((last - first) / WORD), counts.eq(0).unsqueeze(1)
    rows, here = torch.repeat_interleave(counts.long(), output_size=len(ids)), (ids >= first) & (ids < last)
    places = torch.unique((rows * (words * WORD) + ids.long() - first)[here])
    packed = counts.new_zeros(len(counts) * words, dtype=torch.int32)
    packed.index_add_(0, places // WORD, (1 << places % WORD).int())
    return packed.view(len(counts), words).masked_fill_(whole, -1)


def check_sampling_mask(sampling_mask: Tensor | None, rows: int, vocabulary: int) -> Tensor | None:
    """The mask as kernels take it, without bits behind the vocabulary. Raises ValueError where it does not fit."""
    if sampling_mask is None:
        return None
    words = math.ceil(vocabulary / WORD)
    if sampling_mask.dtype != torch.int32 or sampling_mask.shape != (rows, words):
        found = f"{sampling_mask.dtype} {tuple(sampling_mask.shape)}"
        raise ValueError(f"sampling_mask is {found}; pass int32 [{rows}, {words}], one bit per token, from pack_sampling_mask")
    if rest := vocabulary % WORD:
        sampling_mask = sampling_mask.clone()
        sampling_mask[:, -1] &= (1 << rest) - 1
    return sampling_mask.contiguous()


def kept(sampling_mask: Tensor, first: int, columns: int) -> Tensor:
    """[T, columns] bool, which tokens from `first` on were kept."""
    places = torch.arange(first, first + columns, device=sampling_mask.device)
    return (sampling_mask[:, places // WORD] >> (places % WORD).int()) & 1 != 0


def cut_off(logits: Tensor, sampling_mask: Tensor, first: int, value: float = -math.inf) -> None:
    """Fill in `value` for the tokens that the sampler did not keep; `logits` [T, columns] (or gradients) are those from `first` on."""
    logits.masked_fill_(~kept(sampling_mask, first, logits.shape[1]), value)
