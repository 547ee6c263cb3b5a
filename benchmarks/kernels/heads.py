"""Output heads of real models, with hidden states whose logits look like those of a trained model."""

from __future__ import annotations

import torch
from torch import Tensor

HEADS = {"qwen3-1.7b": (151_936, 2048), "qwen3-4b": (151_936, 2560), "qwen3-8b": (151_936, 4096), "r1-distill-7b": (152_064, 3584)}
HEADS |= {"qwen2.5-0.5b": (151_936, 896), "tiny": (1024, 64)}
"""[V, H] of each; the tiny one only tries the way."""


def draw(head: str, rows: int, device: torch.device, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [rows, H] and head [V, H] that need gradients, and targets [rows].

    Each row has a favourite token with a logit of 20 to 30 and two rivals that lie within four nats below it, over a bulk of
    standard deviation 2.5: entropies are mostly between 0.1 and 1. Three of four targets are one of the three tokens.
    """
    vocabulary, size = HEADS[head]
    generator = torch.Generator(device).manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    weight = torch.randn(vocabulary, size, generator=generator, device=device, dtype=dtype)
    tokens = torch.randint(vocabulary, (rows, 4), generator=generator, device=device)
    peak = uniform(20, 30, rows, 1)
    logits = torch.cat([peak, peak - uniform(0.2, 4, rows, 2)], dim=1)
    hidden = 2.5 / size**0.5 * torch.randn(rows, size, generator=generator, device=device)
    for rank in range(3):
        hidden += logits[:, rank, None] / size * weight[tokens[:, rank]].float()
    chosen = torch.randint(4, (rows, 1), generator=generator, device=device)
    return hidden.to(dtype).requires_grad_(), weight.requires_grad_(), tokens.gather(1, chosen).squeeze(1)
