"""Numbers that a layer keeps and works with for each token, by what runs in it.

Legend: h hidden size, i inner size of the MLP, w width of queries, k width of keys; results count numbers of the
compute dtype, of one token.

Calibrated on `benchmarks.plan.one_layer`, which runs one layer of a model on tensors without memory (torch's FakeTensorMode) with the
modules of CUDA: their own storages are what these sums count (tests/plan/test_plan_activations.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from polaris.plan.setup import Setup
from polaris.plan.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Numbers per token of one decoder layer, its input left out."""

    attention: float
    """What the attention block keeps: normalised input, queries, keys, values, its output, and the sum with the input."""
    mlp: float
    """What the MLP block keeps beside the normalised input, which counts as the attention block's."""
    mlp_backward: float
    """Beside all that is kept, at the most in the MLP's backward: gradients of its output and of the product of gate and up."""
    attention_backward: float
    """Beside what the attention block keeps, at the most in its backward."""


def layer(shape: ModelShape, fused: bool, itemsize: int = 2, sequence_parallel: int = 1) -> Layer:
    """What a layer takes on CUDA. `fused`: by Liger's modules, which keep neither float32 copies nor the activation of the gate. Without
    them norms keep a float32 copy of their input, or in float32 the input itself.

    Attention keeps queries, keys, values and its output; its backward has a float32 sum for the queries' gradient and gradients of keys
    and values for each query head (FlashAttention-2). Ranks that share a pack keep attention's output twice, as it is computed and as it
    comes back, and keys and values as often as they are repeated.
    """
    h, i, w, k, norm = shape.hidden, shape.inner, shape.query, shape.key, int(shape.query_norm)
    copies = _copies(shape, sequence_parallel)
    shared = (w + 2 * k * (copies - 1)) if sequence_parallel > 1 else 0
    copied, norms = (1, 3) if fused else (3, 8) if itemsize < 4 else (2, 5)
    widths = (2 + copied * norm) * (w + k) + shared
    gradients = 4 * w + 4 / itemsize * w + 2 * k
    if fused:
        return Layer(attention=widths + norms * h, mlp=3 * i, mlp_backward=i + h, attention_backward=gradients + h)
    return Layer(attention=widths + norms * h, mlp=4 * i, mlp_backward=2 * i + h, attention_backward=gradients + h)


def _copies(shape: ModelShape, ranks: int) -> int:
    key_heads = max(1, shape.heads * shape.key // shape.query)
    return ranks // gcd(key_heads, ranks)


def stored(setup: Setup, one: Layer) -> float:
    """Numbers per token that all layers leave on the device between forward and backward."""
    h, layers = setup.shape.hidden, setup.shape.layers
    if setup.activations == "keep":
        return layers * (one.attention + one.mlp + h)
    if setup.activations == "recompute_mlp":
        return layers * (one.attention + h)
    return layers * h if setup.activations == "recompute" else min(layers, 3) * h


def working(setup: Setup, one: Layer) -> tuple[float, float]:
    """Numbers per token that one layer's backward needs beside `stored`: while its MLP has its turn, and while its attention has."""
    if setup.activations == "keep":
        return one.mlp_backward, one.attention_backward
    if setup.activations == "recompute_mlp":
        return one.mlp + one.mlp_backward, one.attention_backward
    kept = one.attention + one.mlp
    return kept + one.mlp_backward, one.attention + one.attention_backward
