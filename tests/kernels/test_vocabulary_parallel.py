"""`linear_logprob` with its head divided among two and four ranks, in plain torch and by the kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import head_on_ranks
from head_on_ranks import CASES, Case

from polaris_kernels import linear_logprob
from polaris_kernels.linear_policy_loss import linear_policy_loss_reference

EVERY = pytest.mark.parametrize("kernels", [False, True], ids=["torch", "kernels"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of the four processes found, by case and implementation."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, head_on_ranks.__file__, folder], check=True, env=environment, timeout=240)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(head_on_ranks.PROCESSES)]


def truth(case: Case) -> dict[str, torch.Tensor]:
    """Results and gradients of the whole head in float64; tokens with a bias of minus infinity are left out of its softmax."""
    values = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in case.inputs().items()}
    hidden, weight, bias = (values[name].requires_grad_() for name in ("hidden", "weight", "bias"))
    tokens = bias.isfinite().nonzero().squeeze(1)
    logits = hidden @ weight[tokens].T
    if case.bias:
        logits = logits + bias[tokens]
    if case.logits_dtype is not None:
        logits = logits + (logits.to(case.logits_dtype).double() - logits).detach()
    if case.softcap is not None:
        logits = case.softcap * torch.tanh(logits / case.softcap)
    logprobs = (logits / values["temperature"][:, None]).log_softmax(1)
    ignored = values["targets"] == case.ignore_index
    places = torch.searchsorted(tokens, values["targets"].masked_fill(ignored, int(tokens[0])))
    logprob = logprobs.gather(1, places[:, None])[:, 0].masked_fill(ignored, 0)
    results = {"logprob": logprob}
    loss = (values["coefficients"][0] * logprob).sum()
    if case.with_entropy:
        results["entropy"] = -(logprobs.exp() * logprobs).sum(1).masked_fill(ignored, 0)
        loss = loss + (values["coefficients"][1] * results["entropy"]).sum()
    leaves = {"hidden": hidden, "weight": weight, "bias": bias}
    names = ["hidden"] if case.frozen else list(leaves) if case.bias else ["hidden", "weight"]
    gradients = torch.autograd.grad(loss, [leaves[name] for name in names])
    return {name: tensor.detach() for name, tensor in (results | dict(zip(names, gradients, strict=True))).items()}


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true).norm() / true.norm().clamp(min=1e-30))


@EVERY
@pytest.mark.parametrize("name", CASES)
@pytest.mark.distributed
def test_same_as_the_whole_head_in_float64(processes, name, kernels):
    case, true = CASES[name], truth(CASES[name])
    ranks = [processes[index][name, kernels] for index in case.processes]
    found = ranks[0] | {which: torch.cat([rank[which] for rank in ranks]) for which in ("weight", "bias") if which in true}
    assert set(found) == set(true)
    for which in ("logprob", "entropy"):
        if which in true:
            worst = (found[which].double() - true[which]).abs().max()
            print(f"{which} {worst:.1e}")
            assert worst < 5e-6
    for which in set(true) - {"logprob", "entropy"}:
        relative = error(found[which], true[which])
        print(f"{which} {relative:.1e}")
        assert relative < max(0.8 * torch.finfo(case.dtype).eps, 3e-6)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float16 capped"])
@pytest.mark.distributed
def test_gradient_of_hidden_states_is_rounded_after_the_sum_over_ranks(processes, name):
    case, true = CASES[name], truth(CASES[name])["hidden"]
    found = processes[-1][name, False]["hidden"].double()
    assert ((found - true).abs() <= true.abs() * torch.finfo(case.dtype).eps / 2 + true.abs().max() * 1e-6 + 2**-25).all()


@EVERY
@pytest.mark.parametrize("name", ["policy loss", "policy loss with main_grad"])
@pytest.mark.distributed
def test_policy_loss(processes, name, kernels):
    case = CASES["four"]
    values = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in case.inputs().items()}
    ranks = [processes[index][name, kernels] for index in case.processes]
    hidden, weight = (values[name].requires_grad_() for name in ("hidden", "weight"))
    head = {"temperature": values["temperature"], "softcap": case.softcap}
    loss, totals = linear_policy_loss_reference(
        hidden,
        weight,
        values["targets"],
        *head_on_ranks.tokens(values),
        head=head,
        loss={"reference_logprob": -4 + values["coefficients"][1], **head_on_ranks.LOSS},
    )
    gradients = torch.autograd.grad(loss, (hidden, weight))
    for rank in ranks:
        torch.testing.assert_close(rank["loss"].double(), loss, rtol=1e-5, atol=1e-6)
        for name, total in totals.items():
            torch.testing.assert_close(rank[name].double(), total.double(), rtol=1e-5, atol=1e-5)
        assert error(rank["hidden"], gradients[0]) < 3e-6
    assert error(torch.cat([rank["weight"] for rank in ranks]), gradients[1]) < 3e-6


@EVERY
@pytest.mark.parametrize("name", CASES)
@pytest.mark.distributed
def test_every_rank_has_the_same_bits(processes, name, kernels):
    first, *others = (processes[index][name, kernels] for index in CASES[name].processes)
    for other in others:
        for which in {"logprob", "entropy", "hidden"} & set(first):
            assert torch.equal(other[which], first[which])


@pytest.mark.distributed
def test_what_cannot_work_is_refused_on_every_rank(processes):
    for found in processes:
        assert "targets span 0 to 16, outside [0, 16)" in found["refused"]["target outside"]
        assert "[2, 3, 4, 5] hidden states" in found["refused"]["hidden states of other lengths"]


@pytest.fixture
def alone(tmp_path):
    """A group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_one_rank_has_the_bits_of_no_group(alone):
    values = CASES["uneven"].inputs()
    hidden, weight, bias = (values[name].requires_grad_() for name in ("hidden", "weight", "bias"))
    results = []
    for group in (None, alone):
        logprob, entropy = linear_logprob(hidden, weight, values["targets"], temperature=values["temperature"], bias=bias, group=group)
        loss = (values["coefficients"] * torch.stack([logprob, entropy])).sum()
        results.append([logprob, entropy, *torch.autograd.grad(loss, (hidden, weight, bias))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compiled_without_a_graph_break(alone):
    values = CASES["uneven"].inputs()
    hidden, weight = (values[name].requires_grad_() for name in ("hidden", "weight"))

    def loss(hidden, weight):
        logprob, entropy = linear_logprob(hidden, weight, values["targets"], group=alone)
        return (logprob + 0.1 * entropy).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(hidden, weight), (hidden, weight))
    for got, true in zip(torch.autograd.grad(compiled(hidden, weight), (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(got, true)


def test_a_rank_outside_of_the_group_is_refused():
    with pytest.raises(ValueError, match=r"pass a torch\.distributed\.ProcessGroup that this rank belongs to"):
        linear_logprob(torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 1]), group=dist.GroupMember.NON_GROUP_MEMBER)
