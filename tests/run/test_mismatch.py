"""How far engine and trainer are apart is told of fresh samples and of stored ones apart, however they are packed."""

import dataclasses

import pytest
from groups import batch, group

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.learn.curate import curate
from polaris.learn.success_buffer import SuccessBuffer
from polaris.learn.update import accumulate, rank_packs


def config_of(loss, correction):
    return RunConfig(algorithm=AlgorithmConfig(loss=loss, correction=correction), trainer=TrainerConfig(prompts_per_step=3))


def metrics(trainer, samples, config, tokens_per_pack=10**6):
    policy, world = trainer
    policy.train()
    statistics = accumulate(policy, rank_packs(samples, world, tokens_per_pack), 50.0, config).statistics
    policy.zero_grad()
    return statistics.compute()


@pytest.mark.parametrize("loss", ["dapo", "gspo"])
@pytest.mark.parametrize("correction", ["tis", "mask"])
@pytest.mark.parametrize("tokens_per_pack", [10**6, 40])
def test_fresh_and_stored_samples_have_metrics_of_their_own(trainer, loss, correction, tokens_per_pack):
    drawn = batch(a="+--+", c="----", d="-+--")
    successes = SuccessBuffer(1)
    successes.add([group("c", "+", version=2)])
    config = config_of(loss, correction)
    samples = curate(drawn, config, successes, step=3).samples
    stored = [sample for sample in samples if sample.stored]
    fresh = [sample for sample in samples if not sample.stored]
    assert (len(stored), len(fresh)) == (1, 11)
    found = metrics(trainer, samples, config, tokens_per_pack)
    alone = metrics(trainer, [dataclasses.replace(sample, stored=False, version=0) for sample in stored], config)
    others = metrics(trainer, fresh, config)
    names = {name.removeprefix("mismatch/") for name in others if name.startswith("mismatch/")}
    assert {"kl_k1", "kl_k3", "logprob_gap_mean", "logprob_gap_max", "masked_fraction", "truncated_fraction"} <= names
    assert not any(name.startswith("rescue/") for name in others)
    for name in names:
        assert found[f"mismatch/{name}"] == pytest.approx(others[f"mismatch/{name}"], rel=1e-5, abs=1e-7), name
        assert found[f"rescue/{name}"] == pytest.approx(alone[f"mismatch/{name}"], rel=1e-5, abs=1e-7), name
    assert found["rescue/logprob_gap_mean"] != pytest.approx(found["mismatch/logprob_gap_mean"], rel=0.01)
