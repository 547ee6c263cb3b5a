"""One update and a step of two, against float64 (float64.py): clipping, ratios off 1, and what is not finite."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from float64 import Float64
from samples import training_sample
from torch.distributed.fsdp import FSDPModule

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.config.training import OptimizerConfig, TrainerConfig
from polaris.learn import learner, packing
from polaris.learn.learner import Learner
from polaris.learn.optimizer import build_optimizer
from polaris.learn.packing import build_pack
from polaris.learn.statistics import Statistics
from polaris.learn.update import rank_packs, split_updates, update, with_proximal_logprobs

# eps is large, so that a step of AdamW is not the same for a gradient and for ten times that gradient.
OPTIMIZER = OptimizerConfig(lr=3e-3, eps=1e-3, weight_decay=0.1)


def make_samples(count, seed, scale=1.0):
    """Responses whose engine log-probs are near a uniform policy's."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 12, count)
    return [
        training_sample(
            prompt_tokens=tuple(generator.integers(0, 97, 4).tolist()),
            tokens=generator.integers(0, 97, length).astype(np.int32),
            logprobs=(-np.log(97) + generator.normal(0, 0.4, length)).astype(np.float32),
            advantage=float(scale * generator.normal()),
            temperature=float(generator.choice([0.7, 1.0, 1.4])),
        )
        for length in lengths
    ]


@pytest.fixture
def fresh(trainer):
    """The policy, whose weights are afterwards those of before, and the world."""
    policy, world = trainer
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    yield policy, world
    with torch.no_grad():
        for parameter, value in zip(policy.parameters(), before, strict=True):
            parameter.copy_(value)


def weights_of(policy):
    return {name: parameter.full_tensor().detach().double() for name, parameter in policy.model.named_parameters()}


def moments_of(policy, optimizer, name):
    return {key: optimizer.state[parameter][name].full_tensor().double() for key, parameter in policy.model.named_parameters()}


def distance(ours, truth, before=None):
    """Relative error of all tensors together; of their change where `before` is given."""
    origin = before or {name: torch.zeros_like(value) for name, value in truth.items()}
    error = sum(float((ours[name] - truth[name]).square().sum()) for name in truth)
    return (error / sum(float((truth[name] - origin[name]).square().sum()) for name in truth)) ** 0.5


@pytest.mark.parametrize("grad_clip", [0.05, 0.5, 1e9])
def test_weights_and_moments_are_those_of_a_gradient_clipped_by_hand(fresh, tiny_qwen3, grad_clip):
    policy, world = fresh
    config = RunConfig(optimizer=dataclasses.replace(OPTIMIZER, grad_clip=grad_clip))
    truth, optimizer, before = Float64(tiny_qwen3, config), build_optimizer(policy, config.optimizer), weights_of(policy)
    norms = []
    for samples in (make_samples(5, 0), make_samples(5, 1, 0.05), make_samples(5, 2, 3.0)):
        result = update(policy, optimizer, rank_packs(samples, world, 30), samples, config, Statistics())
        old = [truth.logprobs(sample).detach() for sample in samples]
        loss, norm, _ = truth.step(samples, old, config.optimizer.lr)
        assert result.applied
        assert result.loss == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert result.grad_norm == pytest.approx(norm, rel=1e-4), "the norm before clipping"
        norms.append(norm)
        assert distance(moments_of(policy, optimizer, "exp_avg"), truth.mean) < 1e-4
        assert distance(moments_of(policy, optimizer, "exp_avg_sq"), truth.square) < 1e-4
    assert min(norms) < 0.5 < max(norms) < 1e9, "some gradients are longer than 0.5 and some are not"
    assert distance(weights_of(policy), truth.weights(), before) < 1e-3


def learner_of(policy, world, optimizer, config):
    return Learner(policy=policy, optimizer=optimizer, config=config, world=world)


def test_the_second_update_of_a_step_has_ratios_to_the_policy_before_the_first(fresh, tiny_qwen3):
    policy, world = fresh
    optimizer = dataclasses.replace(OPTIMIZER, lr=2e-2)
    config = RunConfig(optimizer=optimizer, trainer=TrainerConfig(updates_per_step=2, tokens_per_pack=30))
    truth, optimizer, before = Float64(tiny_qwen3, config), build_optimizer(policy, config.optimizer), weights_of(policy)
    samples = make_samples(9, 3)
    result = learner_of(policy, world, optimizer, config).update(samples, 1)
    old = [truth.logprobs(sample).detach() for sample in samples]
    parts = (slice(0, 4), slice(4, 9))
    expected = [truth.step(samples[part], old[part], config.optimizer.lr) for part in parts]
    ratios, tokens = expected[1][2], sum(len(sample.rollout.tokens) for sample in samples)
    advantage = torch.cat([torch.full((len(sample.rollout.tokens),), sample.advantage) for sample in samples[parts[1]]])
    clipped = {"low": int(((ratios < 0.8) & (advantage < 0)).sum()), "high": int(((ratios > 1.28) & (advantage > 0)).sum())}
    assert min(clipped.values()) > 0
    for one, (loss, norm, _) in zip(result.updates, expected, strict=True):
        assert one.loss == pytest.approx(loss, rel=1e-3)
        assert one.grad_norm == pytest.approx(norm, rel=1e-3)
    found = result.statistics
    assert found["policy/ratio_max"] == pytest.approx(float(ratios.max()), rel=1e-3)
    assert {name: found[f"policy/clip_{name}"] for name in clipped} == pytest.approx({n: count / tokens for n, count in clipped.items()})
    assert distance(weights_of(policy), truth.weights(), before) < 2e-3


def limited(policy, most, where):
    """Let the last layer refuse to train on more than `most` tokens, in its forward or in its backward, as a GPU without memory does."""

    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def look(module, arguments, output):
        if output.requires_grad and output.shape[1] > most:
            refuse() if where == "forward" else output.register_hook(refuse)

    return policy.layers[-1].register_forward_hook(look)


@pytest.mark.skipif(not hasattr(FSDPModule, "reset_iter_state"), reason="before 2.13 torch cannot begin an update anew")
@pytest.mark.parametrize(("where", "most"), [("forward", 64), ("backward", 64), ("backward", 30), ("forward", 8)])
def test_packs_without_memory_are_halved_once(fresh, where, most):
    policy, world = fresh
    config = RunConfig(
        optimizer=OPTIMIZER, algorithm=AlgorithmConfig(loss="gspo"), trainer=TrainerConfig(updates_per_step=2, tokens_per_pack=100)
    )
    samples, before = make_samples(16, 5), [parameter.detach().clone() for parameter in policy.parameters()]
    expected = learner_of(policy, world, build_optimizer(policy, OPTIMIZER), config).update(samples, 1)
    truth = weights_of(policy)
    with torch.no_grad():
        for parameter, value in zip(policy.parameters(), before, strict=True):
            parameter.copy_(value)
    hook, learner = limited(policy, most, where), learner_of(policy, world, build_optimizer(policy, OPTIMIZER), config)
    try:
        if most < 64:
            with pytest.raises(torch.OutOfMemoryError):
                learner.update(samples, 1)
            policy.zero_grad()
            policy.reset_iter_state()  # for the tests that follow
            policy.zero_grad()
            return
        found = learner.update(samples, 1)
    finally:
        hook.remove()
    assert [one.split for one in found.updates] == [True, True]
    assert not any(one.split for one in expected.updates)
    assert [one.packs for one in found.updates] == [2 * one.packs for one in expected.updates]
    assert found.statistics == pytest.approx(expected.statistics, rel=1e-4, abs=1e-7)
    assert distance(weights_of(policy), truth) < 1e-6


def test_only_the_packs_in_use_have_tensors(fresh, monkeypatch):
    policy, world = fresh
    config = RunConfig(optimizer=OPTIMIZER, trainer=TrainerConfig(updates_per_step=2, tokens_per_pack=30))
    built, alive = [], []

    def counted(samples, *rest):
        pack = build_pack(samples, *rest)
        built.append(weakref.ref(pack.tokens))
        alive.append(sum(tokens() is not None for tokens in built))
        return pack

    monkeypatch.setattr(packing, "build_pack", counted)
    learner_of(policy, world, build_optimizer(policy, config.optimizer), config).update(make_samples(20, 3), 1)
    assert len(built) > 12
    assert max(alive) <= 2, "one, and the one before it"


def test_a_step_of_one_update_has_no_forward_before_it(fresh, monkeypatch):
    policy, world = fresh
    monkeypatch.setattr(learner, "with_proximal_logprobs", lambda policy, packs: pytest.fail("a forward that nothing needs"))
    config = RunConfig(optimizer=OPTIMIZER)
    result = learner_of(policy, world, build_optimizer(policy, config.optimizer), config).update(make_samples(3, 0), 1)
    assert [one.applied for one in result.updates] == [True]


@pytest.mark.parametrize(("samples", "updates", "sizes"), [(2, 4, [1, 1]), (1, 3, [1]), (0, 2, []), (7, 3, [2, 2, 3]), (4, 4, [1] * 4)])
def test_fewer_samples_than_updates_leave_updates_out(samples, updates, sizes):
    given = make_samples(samples, 0)
    parts = split_updates(given, updates)
    assert [len(part) for part in parts] == sizes
    assert [sample for part in parts for sample in part] == given, "in prompt order, none twice"


def test_a_step_of_fewer_samples_than_updates(fresh, tiny_qwen3):
    policy, world = fresh
    config = RunConfig(optimizer=OPTIMIZER, trainer=TrainerConfig(updates_per_step=4))
    truth, optimizer, before = Float64(tiny_qwen3, config), build_optimizer(policy, config.optimizer), weights_of(policy)
    samples = make_samples(2, 4)
    own = learner_of(policy, world, optimizer, config)
    result = own.update(samples, 1)
    old = [truth.logprobs(sample).detach() for sample in samples]
    for sample, logprobs in zip(samples, old, strict=True):
        truth.step([sample], [logprobs], config.optimizer.lr)
    assert [one.applied for one in result.updates] == [True, True]
    assert distance(weights_of(policy), truth.weights(), before) < 2e-3
    nothing = own.update([], 2)
    assert (nothing.updates, nothing.applied) == ([], False)


def infinite_gradient(samples, policy, world):
    """The sum of the losses is finite; the norm of the gradients is not."""
    samples = [dataclasses.replace(samples[0], advantage=3e38 / len(samples[0].rollout.tokens)), *samples[1:]]
    return samples, rank_packs(samples, world, 30)


def infinite_loss(samples, policy, world):
    """Clipped tokens have no gradient, and each a loss that is finite; the sum of three is not."""
    assert len(samples[0].rollout.tokens) >= 3
    samples = [dataclasses.replace(samples[0], advantage=1e38), *samples[1:]]
    packs = with_proximal_logprobs(policy, rank_packs(samples, world, 30))
    batches = [dataclasses.replace(pack.batch, proximal_logprob=pack.batch.proximal_logprob - 0.5) for pack in packs]
    return samples, [dataclasses.replace(pack, batch=batch) for pack, batch in zip(packs, batches, strict=True)]


@pytest.mark.parametrize("spoil", [infinite_gradient, infinite_loss])
def test_neither_an_infinite_gradient_nor_an_infinite_loss_alone_is_applied(fresh, spoil):
    policy, world = fresh
    config = RunConfig(optimizer=OPTIMIZER, algorithm=AlgorithmConfig(correction="off"))
    optimizer, good = build_optimizer(policy, config.optimizer), make_samples(5, 5)
    update(policy, optimizer, rank_packs(good, world, 30), good, config, Statistics())
    before = [weights_of(policy), moments_of(policy, optimizer, "exp_avg"), moments_of(policy, optimizer, "exp_avg_sq")]
    counts = [int(state["step"]) for state in optimizer.state.values()]
    samples, packs = spoil(good, policy, world)
    result = update(policy, optimizer, packs, samples, config, Statistics())
    assert np.isfinite(result.loss) == (spoil is infinite_gradient), result
    assert np.isfinite(result.grad_norm) == (spoil is infinite_loss), result
    assert not result.applied
    after = [weights_of(policy), moments_of(policy, optimizer, "exp_avg"), moments_of(policy, optimizer, "exp_avg_sq")]
    for kept, now in zip(before, after, strict=True):
        assert all(torch.equal(kept[name], now[name]) for name in kept)
    assert [int(state["step"]) for state in optimizer.state.values()] == counts
    assert all(parameter.grad is None for parameter in policy.parameters()), "nothing of it is left for the next update"
    assert update(policy, optimizer, rank_packs(good, world, 30), good, config, Statistics()).applied
