"""The operations among torch's own machinery: compilation, recomputation, FSDP2, and what they refuse by name."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss

SIZE, VOCABULARY = 8, 31
PREFIX = "polaris_kernels::"


def inputs(rows=9, seed=0):
    """Hidden states, head, targets, engine log-probs, advantages and mask."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(rows, SIZE, generator=generator), torch.randn(VOCABULARY, SIZE, generator=generator)
    targets = torch.randint(VOCABULARY, (rows,), generator=generator)
    behaviour, advantage = -4 * torch.rand(rows, generator=generator), torch.randn(rows, generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, behaviour, advantage, torch.rand(rows, generator=generator) < 0.8


def scored(hidden, weight, targets, *tokens, main_grad=None):
    logprob, entropy = linear_logprob(hidden, weight, targets, temperature=0.8, main_grad=main_grad)
    return logprob.sum() + entropy.sum()


def fused(hidden, weight, targets, *tokens, main_grad=None):
    return linear_policy_loss(hidden, weight, targets, *tokens, 7.0, main_grad=main_grad)[0]


def from_logits(hidden, weight, targets, *tokens):
    logprob, entropy = logprob_from_logits(hidden @ weight.T, targets, 0.8)
    return logprob.sum() + entropy.sum()


def from_masked_logits(hidden, weight, targets, *tokens):
    kept = torch.full((hidden.shape[0], 1), -1, dtype=torch.int32)  # all of the vocabulary
    logprob, entropy = logprob_from_logits(hidden @ weight.T, targets, 0.8, sampling_mask=kept)
    return logprob.sum() + entropy.sum()


def loss_of_logprobs(hidden, weight, targets, *tokens):
    return policy_loss((hidden @ weight.T).log_softmax(1)[:, 0], *tokens, 7.0, correction="tis")[0]


EVERY = pytest.mark.parametrize("operation", [scored, fused, from_logits, loss_of_logprobs])


def gradients(function, values):
    return torch.autograd.grad(function(*values), values[:2])


@pytest.mark.parametrize("operation", [scored, from_logits, from_masked_logits, loss_of_logprobs])
def test_other_numbers_of_rows_are_not_compiled_again(operation):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(operation, fullgraph=True, backend=counter)
    for rows in (9, 10, 33, 200, 7):
        values = inputs(rows)
        for ours, expected in zip(gradients(compiled, values), gradients(operation, values), strict=True):
            torch.testing.assert_close(ours, expected)
    assert counter.frame_count == 2  # the second is that of any number of rows


def test_a_compiled_target_outside_the_vocabulary_is_nan():
    hidden, weight, targets = inputs()[:3]
    targets[0], targets[1] = VOCABULARY, -3
    logprob = torch.compile(lambda *x: linear_logprob(*x)[0], fullgraph=True, backend="aot_eager")(hidden, weight, targets)
    assert logprob.isnan().nonzero().flatten().tolist() == [0, 1]


def test_the_fused_loss_asks_not_to_be_compiled():
    torch._dynamo.reset()
    values = inputs()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="without fullgraph"):
        torch.compile(fused, fullgraph=True, backend="aot_eager")(*values)
    counter = CompileCounterWithBackend("aot_eager")
    around = torch.compile(lambda hidden, *rest: fused(2 * hidden, *rest), backend=counter)
    expected = gradients(lambda hidden, *rest: fused(2 * hidden, *rest), values)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(gradients(around, values), expected, strict=True))
    assert counter.frame_count == 0, "neither the function that calls it nor anything within it"


@EVERY
@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_gives_the_same_bits(operation, reentrant):
    values = inputs()
    expected = gradients(operation, values)
    checkpoint(operation, *values, use_reentrant=reentrant).backward()
    assert all(torch.equal(leaf.grad, b) for leaf, b in zip(values[:2], expected, strict=True))


@EVERY
def test_a_second_backward_through_a_kept_graph_gives_the_same_bits(operation):
    values = inputs()
    loss = operation(*values)
    first, second = (torch.autograd.grad(loss, values[:2], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("operation", [scored, fused, from_logits])
def test_second_derivatives_are_refused(operation):
    values = inputs()
    with pytest.raises(RuntimeError, match=r"differentiable once: .* without create_graph=True"):
        torch.autograd.grad(operation(*values), values[:2], create_graph=True)


@pytest.mark.parametrize("operation", [scored, fused, from_logits])
def test_forward_mode_is_refused(operation):
    hidden, *rest = (value.detach() for value in inputs())
    with pytest.raises(RuntimeError, match=r"no forward-mode derivative .* use backward"):
        torch.func.jvp(lambda x: operation(x, *rest), (hidden,), (hidden,))


@EVERY
def test_tensors_on_two_devices_are_named(operation):
    hidden, weight, targets, behaviour, advantage, mask = (value.detach() for value in inputs())
    moved = (hidden, weight, targets.to("meta"), behaviour, advantage, mask)
    if operation in (fused, loss_of_logprobs):
        moved = (hidden, weight, targets, behaviour.to("meta"), advantage, mask)
    with pytest.raises(ValueError, match=r"on cpu, .* on meta.*: move all to one device"):
        operation(*moved)


class Model(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.body, self.head = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, VOCABULARY, bias=False)
        self.operation = operation

    def forward(self, hidden, *rest):
        return self.operation(self.body(hidden), self.head.weight, *rest)


@pytest.fixture
def mesh():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("operation", [scored, fused, from_logits])
def test_inside_a_module_that_fsdp_shards(mesh, operation):
    from torch.distributed.fsdp import fully_shard

    hidden, _, *rest = inputs()
    plain = Model(operation)
    sharded = fully_shard(copy.deepcopy(plain), mesh=mesh)
    for model in (plain, sharded):
        model(hidden, *rest).backward()
    for ours, expected in zip(sharded.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad.full_tensor(), expected.grad)


@pytest.mark.parametrize("operation", [scored, fused])
def test_main_grad_inside_a_module_that_fsdp_shards(mesh, operation):
    """It has all rows of the gathered weight; FSDP reduces the other gradients and finds none here."""
    from torch.distributed.fsdp import fully_shard

    hidden, _, *rest = inputs()
    main_grad = torch.zeros(VOCABULARY, SIZE)
    plain = Model(operation)
    sharded = fully_shard(copy.deepcopy(plain), mesh=mesh)
    sharded.operation = functools.partial(operation, main_grad=main_grad)
    for model in (plain, sharded):
        model(hidden, *rest).backward()
    assert sharded.head.weight.grad is None
    torch.testing.assert_close(main_grad, plain.head.weight.grad)
    assert torch.equal(sharded.body.weight.grad.full_tensor(), plain.body.weight.grad)


@EVERY
def test_dtensors_are_refused(mesh, operation):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    for placement in (Replicate(), Shard(0)):
        hidden, weight = (distribute_tensor(value.detach(), mesh, [placement]) for value in inputs()[:2])
        with pytest.raises(ValueError, match=r"is a DTensor; .*\.full_tensor\(\)"):
            operation(hidden, weight, *inputs()[2:])


@pytest.mark.parametrize("operation", [scored, fused])
def test_a_dtensor_cannot_be_added_to(mesh, operation):
    from torch.distributed.tensor import Shard, distribute_tensor

    main_grad = distribute_tensor(torch.zeros(VOCABULARY, SIZE), mesh, [Shard(0)])
    with pytest.raises(ValueError, match="main_grad is a DTensor: pass a plain buffer"):
        operation(*inputs(), main_grad=main_grad)


def test_what_an_operation_mutates_has_no_default():
    """torch 2.11 leaves out last arguments that have theirs, and then raises IndexError in the backward."""
    names = [name.removeprefix(PREFIX) for name in torch._C._dispatch_get_all_op_names() if name.startswith(PREFIX)]
    mutated = [
        argument
        for name in names
        for argument in getattr(torch.ops.polaris_kernels, name).default._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    assert {argument.name for argument in mutated} == {"main_grad", "gradient"}
    assert not any(argument.has_default_value() for argument in mutated)
