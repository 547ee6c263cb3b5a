"""Whichever of hidden states, weight and bias need a gradient: each gets the right one, and the others none.

A trainer of adapters freezes the head, one of the head alone freezes the hidden states. The truth is written out in float64.
"""

from __future__ import annotations

import importlib
from itertools import combinations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits
from polaris_kernels.head import Head
from polaris_kernels.linear_logprob import chunked
from polaris_kernels.logprob_from_logits.tiled import Shape
from polaris_kernels.rows import Rows
from polaris_kernels.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, SIZE, VOCABULARY = 21, 24, 131
LEAVES = ("hidden", "weight", "bias")
SUBSETS = [subset for count in range(4) for subset in combinations(LEAVES, count)]
TEMPERATURE, SOFTCAP = 0.8, 5.0


@pytest.fixture(params=["torch", "kernels"])
def served(request, monkeypatch):
    """By plain torch in chunks, or by the Triton kernels (interpreted without a GPU, at small tiles)."""
    if DEVICE == "cuda":
        pytest.skip("the device decides what serves a call there")
    if request.param == "torch":
        monkeypatch.setattr(chunked, "_BLOCK_ROWS", 8)
        monkeypatch.setattr(chunked, "_SLAB_COLUMNS", 50)
        return
    tiles = Tiles(block_t=16, block_v=32, block_h=16, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
    constants = Shape.constants
    monkeypatch.setattr(Shape, "constants", lambda self, logits: constants(Shape(threads=32, bytes=16), logits))
    for operation in ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss"):
        module = importlib.import_module(f"polaris_kernels.{operation}.function")
        monkeypatch.setattr(module, "uses_triton", lambda tensor: True)
    for module in ("linear_logprob.function", "linear_policy_loss.tiled"):
        monkeypatch.setattr(importlib.import_module(f"polaris_kernels.{module}"), "tiles_for", lambda hidden, head: tiles)


def inputs():
    generator = torch.Generator().manual_seed(0)
    leaves = {
        "hidden": torch.randn(ROWS, SIZE, generator=generator),
        "weight": torch.randn(VOCABULARY, SIZE, generator=generator),
        "bias": torch.randn(VOCABULARY, generator=generator),
    }
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    # Ratios of about 0.5 to 2, so that both clips act, and the dual clip at 3 does not.
    gap, advantage = 0.3 * torch.randn(ROWS, generator=generator), torch.randn(ROWS, generator=generator)
    advantage[3:6] = 0
    return leaves, targets, gap, advantage


def true_logprobs(leaves, targets):
    """Log-probs and entropies [T] by their definition."""
    logits = leaves["hidden"] @ leaves["weight"].T + leaves["bias"]
    logprobs = (SOFTCAP * (logits / SOFTCAP).tanh() / TEMPERATURE).log_softmax(1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(1)


def behaviour_of(leaves, targets, gap):
    with torch.no_grad():
        return true_logprobs({name: leaf.double() for name, leaf in leaves.items()}, targets)[0] - gap


def true_loss(leaves, targets, gap, advantage):
    """-min(r A, clip(r, 0.8, 1.28) A), summed over the tokens, over 7."""
    logprob, _ = true_logprobs(leaves, targets)
    ratio = (logprob - behaviour_of(leaves, targets, gap)).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).sum() / 7


def true_score(leaves, targets, gap, advantage):
    logprob, entropy = true_logprobs(leaves, targets)
    return (advantage * logprob + gap * entropy).sum()


def fused(leaves, targets, gap, advantage):
    behaviour = behaviour_of(leaves, targets, gap).float()
    options = {"temperature": TEMPERATURE, "bias": leaves["bias"], "softcap": SOFTCAP, "proximal_logprob": behaviour}
    return linear_policy_loss(leaves["hidden"], leaves["weight"], targets, behaviour, advantage, None, 7.0, **options)[0]


def scored(leaves, targets, gap, advantage):
    options = {"temperature": TEMPERATURE, "bias": leaves["bias"], "softcap": SOFTCAP}
    logprob, entropy = linear_logprob(leaves["hidden"], leaves["weight"], targets, **options)
    return (advantage * logprob + gap * entropy).sum()


def scored_from_logits(leaves, targets, gap, advantage):
    logits = SOFTCAP * ((leaves["hidden"] @ leaves["weight"].T + leaves["bias"]) / SOFTCAP).tanh()
    logprob, entropy = logprob_from_logits(logits, targets, TEMPERATURE)
    return (advantage * logprob + gap * entropy).sum()


@pytest.mark.parametrize(
    ("operation", "truth", "subset"),
    [
        *((*of_head, subset) for of_head in ((fused, true_loss), (scored, true_score)) for subset in SUBSETS),
        # That operation sees the logits alone, which need a gradient or not.
        *((scored_from_logits, true_score, subset) for subset in ((), LEAVES)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "+".join(value) or "none",
)
def test_every_leaf_that_needs_a_gradient_gets_it_and_no_other(served, operation, truth, subset):
    values, *tokens = inputs()
    ours = {name: value.clone().requires_grad_(name in subset) for name, value in values.items()}
    exact = {name: value.double().requires_grad_(name in subset) for name, value in values.items()}
    loss, expected = operation(ours, *tokens), truth(exact, *tokens)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    assert loss.requires_grad == bool(subset)
    if subset:
        loss.backward()
        expected.backward()
    for name in LEAVES:
        if name in subset:
            assert exact[name].grad.abs().max() > 1e-2
            torch.testing.assert_close(ours[name].grad.double(), exact[name].grad, rtol=1e-4, atol=2e-5)
        else:
            assert ours[name].grad is None


class NewTensors(TorchDispatchMode):
    """Counts tensors of a shape that share no memory with `known`."""

    def __init__(self, known):
        super().__init__()
        self.known, self.places = known, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.shape == self.known.shape and tensor.data_ptr() != self.known.data_ptr():
                self.places.add(tensor.data_ptr())
        return result


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_weight_has_no_gradient_buffer(frozen):
    values, targets, gap, advantage = inputs()
    hidden, weight = values["hidden"].requires_grad_(), values["weight"].requires_grad_(not frozen)
    with NewTensors(weight) as new:
        linear_policy_loss(hidden, weight, targets, gap - 5, advantage, None, 7.0)[0].backward()
    assert bool(new.places) == (not frozen)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_weight_has_no_gradient_buffer_in_the_backward_of_log_probs(monkeypatch, frozen):
    monkeypatch.setattr(chunked, "_SLAB_COLUMNS", 50)
    values, targets, gap, _ = inputs()
    head, ones = Head(weight=values["weight"]), torch.ones(ROWS)
    logprob, entropy, (maximum, log_total) = chunked.chunked_forward(values["hidden"], head, targets, ones, -100, True)
    rows = Rows(
        targets=targets,
        temperature=ones,
        maximum=maximum,
        log_total=log_total,
        logprob=logprob,
        entropy=entropy,
        logprob_gradient=gap,
        entropy_gradient=ones,
    )
    with NewTensors(values["weight"]) as new:
        _, weight_gradient, bias_gradient = chunked.chunked_backward(values["hidden"], head, rows, not frozen)
    assert bool(new.places) == (weight_gradient is not None) == (not frozen)
    assert bias_gradient is None
