"""What is done to the model of a vLLM worker, of our own engine and of a server: its rotary table is read, its weights are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from polaris.model.rope import rotary_table
from polaris.rollout.checkpoint import complete

Weights = Iterable[tuple[str, torch.Tensor]]


def rotary_table_of(model: Any, positions: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
    """See `Engine.rotary_table`; positions beyond the table are left out. If vLLM runs transformers' modules, the table is theirs."""
    caches = {id(module): module.cos_sin_cache for module in model.modules() if hasattr(module, "cos_sin_cache")}
    if not caches:
        return rotary_table(model, positions, dtype)
    if len(caches) > 1:
        return None
    (cache,) = caches.values()
    return cache[[position for position in positions if position < len(cache)]].cpu()


def replace_weights(
    model: Any, reload: Callable[[Weights], Any], weights: Weights, shapes: dict[str, torch.Size], names: dict[str, str]
) -> None:
    """Replace all weights of `model` by `reload`, vLLM's own function of weights by their names in a checkpoint.

    `shapes` and `names` are `polaris.rollout.checkpoint.expected_weights` of the model.

    Raises:
        RuntimeError: names or shapes of `weights` are not those of the model, which then holds a part of them.
    """
    reload((names[name], weight) for name, weight in complete(weights, shapes))
    repack_tied_head(model)


def repack_tied_head(model: Any) -> None:
    """Repack a tied output head: on CPU it keeps the oneDNN-packed matrix of the old weights (vLLM 0.24 to 0.32)."""
    if torch.cuda.is_available():
        return
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    embeddings = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding) and module not in heads]
    for head in heads:
        if any(head.weight is embedding.weight for embedding in embeddings):
            head.quant_method.process_weights_after_loading(head)
