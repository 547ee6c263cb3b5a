"""`policy_loss` by its kernel is one launch forward and one backward, and its counter of programs is ready for the next call."""

from __future__ import annotations

import importlib
from collections import deque

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polaris_kernels import policy_loss
from polaris_kernels.policy_loss import tiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FREE = {"empty", "empty_like", "new_empty", "empty_strided", "view", "view_as", "detach", "alias", "unbind", "select", "ones_like"}
"""Allocations and views; and the 1 that `backward` starts with, which a trainer's own graph brings along."""


class Launches(TorchDispatchMode):
    """Names of the operators of torch that launch something; calls of the kernel are added by the test."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if (name := function.name().split("::")[1].split(".")[0]) not in FREE:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def by_the_kernel(monkeypatch):
    """And no check looks at values, as on CUDA."""
    function = importlib.import_module("polaris_kernels.policy_loss.function")
    monkeypatch.setattr(function, "uses_triton", lambda tensor: True)
    monkeypatch.setattr(function, "may_look", lambda values: False)


def tokens():
    generator = torch.Generator().manual_seed(0)
    logprob, behaviour, advantage = (torch.randn(3000, generator=generator).to(DEVICE) for _ in range(3))
    return logprob.requires_grad_(), behaviour, advantage, (behaviour > -1), torch.tensor([1000, 0, 2000], device=DEVICE)


@pytest.mark.parametrize("kind", ["dapo", "grpo", "gspo"])
@pytest.mark.parametrize("loaded", [False, True])
def test_one_launch_in_each_direction(kind, loaded, monkeypatch):
    logprob, behaviour, advantage, mask, lengths = tokens()
    denominator = torch.tensor(3000.0, device=DEVICE) if loaded else 3000.0
    tiled._counter(logprob.device)
    kernel, launches = tiled.loss_kernel, Launches()

    class Counted:
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                launches.names.append("kernel")
                with torch.utils._python_dispatch._disable_current_modes():
                    kernel[grid](*arguments, **options)

            return launch

    monkeypatch.setattr(tiled, "loss_kernel", Counted())
    with launches:
        options = {"correction": "tis", "proximal_logprob": behaviour, "sequence_lengths": lengths}
        loss, totals = policy_loss(logprob, behaviour, advantage, mask, denominator, kind=kind, **options)
        forward = list(launches.names)
        (gradient,) = torch.autograd.grad(loss, logprob)
    assert forward == ["kernel"]
    assert launches.names == ["kernel", "mul"]
    assert gradient.isfinite().all()
    assert totals["tokens"] == mask.sum()


def test_a_counter_is_ready_for_the_next_call(monkeypatch):
    """As when a graph is replayed, which uses the counter that it was captured with."""
    logprob, behaviour, advantage, mask, _ = tokens()
    counter = torch.zeros(4, dtype=torch.int32, device=DEVICE)
    monkeypatch.setitem(tiled._counters, logprob.device, deque([counter]))
    first, second = (policy_loss(logprob, behaviour, advantage, mask, 9.0) for _ in range(2))
    assert counter.eq(0).all()
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_calls_take_turns_with_the_counters(monkeypatch):
    monkeypatch.setattr(tiled, "_counters", {})
    places = [tiled._counter(torch.device(DEVICE)).data_ptr() for _ in range(tiled._COUNTERS + 1)]
    assert len(set(places)) == tiled._COUNTERS
    assert places[0] == places[-1]
    assert all(place % 16 == 0 for place in places)
