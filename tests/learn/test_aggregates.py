"""`algorithm.aggregate` and the corrections of whole sequences: papers' formulas in float64, and TRL's and verl's own functions."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polaris.config.algorithm import AlgorithmConfig
from polaris.learn.aggregate import aggregate_of, count, denominator, weighted
from polaris.learn.objective import policy_loss_settings
from polaris.learn.packing import TrainingSample, build_pack, plan_packs
from polaris.types import Rollout
from polaris_kernels import TokenBatch, policy_loss_of_batch
from polaris_kernels.policy_loss.correction import importance_correction

LENGTHS, GROUPS, LONGEST = (5, 1, 9, 3, 4, 2), (0, 0, 0, 1, 1, 2), 12


def verl(place, *names):
    """verl's own functions, taken from their file with its constants: the whole module needs ray."""
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not installed; make peers installs it")
    file = Path(spec.submodule_search_locations[0]) / place
    kept = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign)]
    kept = [node for node in kept if not isinstance(node, ast.FunctionDef) or not node.decorator_list]
    constants = [node for node in kept if not isinstance(node, ast.FunctionDef) and ast.unparse(node).partition(":")[0].isupper()]
    functions = [node for node in kept if isinstance(node, ast.FunctionDef)]
    scope = {"torch": torch, "math": math}
    if place != "utils/torch_functional.py":
        masked = verl("utils/torch_functional.py", "masked_sum", "masked_mean")
        scope["verl_F"] = SimpleNamespace(masked_sum=masked[0], masked_mean=masked[1])
    exec(compile(ast.Module([*constants, *functions], []), str(file), "exec", flags=annotations.compiler_flag), scope)
    return [scope[name] for name in names]


def samples(seed=0):
    generator = np.random.default_rng(seed)
    found = []
    for length, group in zip(LENGTHS, GROUPS, strict=True):
        rollout = Rollout(
            prompt_id="",
            sample=0,
            tokens=generator.integers(0, 90, length).astype(np.int32),
            logprobs=-generator.random(length, dtype=np.float32),
            versions=np.zeros(length, np.int32),
            finish_reason="stop",
            temperature=1.0,
            seed=0,
        )
        found.append(TrainingSample(prompt_tokens=(1, 2), rollout=rollout, advantage=float(generator.normal()), group=group))
    return found


def ours(config, of_samples, tokens_per_pack=10**6):
    """The loss of an update on samples whose log-probs are the engine's plus 0.1, in packs; and the corrected token losses, unaveraged."""
    parts = weighted(of_samples, config)
    total = denominator(aggregate_of(config), count(parts, LONGEST))
    loss = 0.0
    for members in plan_packs([s.length for s in parts], 1, tokens_per_pack)[0]:
        batch = build_pack([parts[i] for i in members], torch.device("cpu")).batch
        batch = dataclasses.replace(batch, behaviour_logprob=batch.behaviour_logprob.double())
        loss += float(policy_loss_of_batch(batch.behaviour_logprob + 0.1, batch, policy_loss_settings(config), total)[0])
    return loss


def token_losses(of_samples):
    """Of dapo and grpo at ratio 1: -w A."""
    return [np.full(len(s.rollout.tokens), -np.exp(0.1) * s.advantage) for s in of_samples]


def formula(kind, losses, groups):
    match kind:
        case "token":
            return np.concatenate(losses).mean()
        case "sequence":
            return np.mean([values.mean() for values in losses])
        case "prompt":
            return np.mean([np.concatenate([v for v, g in zip(losses, groups, strict=True) if g == group]).mean() for group in set(groups)])
        case "constant":
            return sum(values.sum() for values in losses) / (len(losses) * LONGEST)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "gspo"])
@pytest.mark.parametrize("kind", ["token", "sequence", "prompt", "constant"])
@pytest.mark.parametrize("tokens_per_pack", [10**6, 8])
def test_each_aggregate_is_its_papers_mean(loss, kind, tokens_per_pack):
    """Loss by loss, however packed; the default of each loss is one of them, to the bit."""
    of_samples = samples()
    config = AlgorithmConfig(loss=loss, aggregate=kind)
    value = ours(config, of_samples, tokens_per_pack)
    assert value == pytest.approx(formula(kind, token_losses(of_samples), GROUPS), rel=1e-6)  # a weight is float32
    own = dataclasses.replace(config, aggregate=None)
    if aggregate_of(own) == kind:
        assert value == ours(own, of_samples, tokens_per_pack)
        assert weighted(of_samples, config) == of_samples


def test_a_copy_of_a_prompt_counts_once_more():
    of_samples = samples()
    copied = [*of_samples, *(dataclasses.replace(s, group=3) for s, g in zip(of_samples, GROUPS, strict=True) if g == 1)]
    losses = token_losses(copied)
    assert ours(AlgorithmConfig(aggregate="prompt"), copied) == pytest.approx(formula("prompt", losses, [*GROUPS, 3, 3]), rel=1e-6)


def padded(values):
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(v) for v in values], batch_first=True)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("token", "token-mean", {}),
        ("sequence", "seq-mean-token-mean", {}),
        ("constant", "seq-mean-token-sum-norm", {"loss_scale_factor": LONGEST}),
    ],
)
def test_aggregates_of_verl(kind, mode, options):
    (agg_loss,) = verl("trainer/ppo/core_algos.py", "agg_loss")
    of_samples = samples()
    losses = token_losses(of_samples)
    expected = agg_loss(padded(losses), padded([np.ones(n) for n in LENGTHS]), mode, **options)
    assert ours(AlgorithmConfig(aggregate=kind), of_samples) == pytest.approx(float(expected), rel=1e-6)


def gaps(seed=0, spread=0.4):
    """Log-ratios of the trainer to the engine, one tensor a sequence."""
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(n, generator=generator, dtype=torch.float64) for n in LENGTHS]


def correction(of_gaps, **settings):
    joined = torch.cat(of_gaps)
    batch = TokenBatch(
        behaviour_logprob=-joined, advantage=joined, proximal_logprob=torch.zeros_like(joined), sequence_lengths=torch.tensor(LENGTHS)
    )
    return importance_correction(batch, policy_loss_settings(AlgorithmConfig(**settings)))


def each(of_gaps, weight):
    return torch.cat([torch.full_like(gap, float(weight(gap))) for gap in of_gaps])


@pytest.mark.parametrize("seed", range(3))
def test_corrections_of_whole_sequences(seed):
    of_gaps = gaps(seed)
    found = correction(of_gaps, correction="sequence_tis", correction_high=1.3)
    torch.testing.assert_close(found.weight, each(of_gaps, lambda gap: min(gap.sum().exp(), 1.3)))
    assert torch.equal(found.truncated, each(of_gaps, lambda gap: gap.sum().exp() > 1.3).bool())
    found = correction(of_gaps, correction="sequence_mask", correction_low=0.6, correction_high=1.5)
    torch.testing.assert_close(found.weight, each(of_gaps, lambda gap: gap.sum().exp() if 0.6 <= gap.sum().exp() <= 1.5 else 0))
    assert torch.equal(found.masked, found.weight == 0)
    found = correction(of_gaps, correction="geometric_mask", correction_low=0.9, correction_high=1.1)
    torch.testing.assert_close(found.weight, each(of_gaps, lambda gap: 0.9 <= gap.mean().exp() <= 1.1))
    assert torch.equal(found.masked, found.weight == 0)


def test_bounds_left_out_are_the_corrections_own():
    for kind, bounds in (("tis", (0.5, 2.0)), ("mask", (0.5, 2.0)), ("sequence_tis", (0.5, 2.0)), ("sequence_mask", (0.0, 3.0))):
        config = AlgorithmConfig(correction=kind)
        assert config.correction_bounds == policy_loss_settings(config).correction_bounds == bounds
    config = AlgorithmConfig(correction="geometric_mask", correction_high=1.2)
    assert config.correction_bounds == policy_loss_settings(config).correction_bounds == (0.99, 1.2)


@pytest.mark.parametrize("kind", ["sequence_tis", "sequence_mask", "geometric_mask"])
def test_a_missing_log_prob_takes_no_part_and_a_sum_does_not_overflow(kind):
    of_gaps = [torch.full((n,), 0.001) for n in LENGTHS]
    of_gaps[0][2] = torch.nan
    of_gaps[2] += 1e3
    found = correction(of_gaps, correction=kind)
    assert found.weight.isfinite().all()
    assert found.nonfinite.nonzero().tolist() == [[2]]
    assert found.weight[:5].count_nonzero() == 4
    assert (found.truncated if kind == "sequence_tis" else found.masked)[6:15].all()


@pytest.mark.parametrize("seed", range(3))
def test_sequence_weights_of_verl(seed):
    names = ("compute_rollout_correction_weights", "compute_rollout_rejection_mask")
    weights, rejection = verl("trainer/ppo/rollout_corr_helper.py", *names)
    of_gaps = gaps(seed)
    mask = padded([torch.ones(n, dtype=torch.float64) for n in LENGTHS])
    kept = mask.bool()
    for kind, threshold in (("sequence_tis", 1.3), ("sequence_mask", "0.6_1.5")):
        expected, _ = weights(padded(of_gaps), mask, "sequence", threshold)
        bounds = {"correction_high": 1.3} if kind == "sequence_tis" else {"correction_low": 0.6, "correction_high": 1.5}
        torch.testing.assert_close(correction(of_gaps, correction=kind, **bounds).weight, expected[kept])
    expected, _ = rejection(padded(of_gaps), mask, "seq_mean_k1", "0.9_1.1")
    found = correction(of_gaps, correction="geometric_mask", correction_low=0.9, correction_high=1.1)
    torch.testing.assert_close(found.weight, expected[kept].double())
