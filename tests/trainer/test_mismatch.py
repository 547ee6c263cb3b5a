"""How far engine and trainer are apart is told of fresh samples and of stored ones apart, however they are packed."""

import dataclasses

import pytest
import torch
from groups import batch, group
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.algorithm.metrics import Statistics
from polaris.config.schema import AlgorithmConfig, RunConfig, TrainerConfig
from polaris.distributed.fsdp import shard
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy
from polaris.trainer.curate import curate
from polaris.trainer.rescue import store_successes
from polaris.trainer.successes import Successes
from polaris.trainer.update import accumulate, rank_packs


@pytest.fixture(scope="module")
def policy(tmp_path_factory, world):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=97, num_hidden_layers=2, **shape)).save_pretrained(path)
    policy = shard(Policy(build_model(path)), world.mesh, torch.float32)
    load_weights(policy.model, path, world.device)
    return policy


def config_of(loss, correction):
    return RunConfig(algorithm=AlgorithmConfig(loss=loss, correction=correction), trainer=TrainerConfig(prompts_per_step=3))


def metrics(policy, world, samples, config, tokens_per_pack=10**6):
    statistics = Statistics()
    policy.train()
    accumulate(policy, rank_packs(samples, world, tokens_per_pack), None, 50.0, config, statistics)
    policy.zero_grad()
    return statistics.compute()


@pytest.mark.parametrize("loss", ["dapo", "gspo"])
@pytest.mark.parametrize("correction", ["tis", "mask"])
@pytest.mark.parametrize("tokens_per_pack", [10**6, 40])
def test_fresh_and_stored_samples_have_metrics_of_their_own(policy, world, loss, correction, tokens_per_pack):
    prompts, drawn = batch(a="+--+", c="----", d="-+--")
    successes = Successes(1)
    store_successes(successes, [prompts[1]], [group("c", "+", version=2)])
    config = config_of(loss, correction)
    samples = curate(prompts, drawn, config, successes, step=3).samples
    stored = [sample for sample in samples if sample.stored]
    fresh = [sample for sample in samples if not sample.stored]
    assert (len(stored), len(fresh)) == (1, 11)
    found = metrics(policy, world, samples, config, tokens_per_pack)
    alone = metrics(policy, world, [dataclasses.replace(sample, stored=False) for sample in stored], config)
    others = metrics(policy, world, fresh, config)
    names = {name.removeprefix("mismatch/") for name in others if name.startswith("mismatch/")}
    assert {"kl_k1", "kl_k3", "logprob_gap_mean", "logprob_gap_max", "masked_fraction", "truncated_fraction"} <= names
    assert not any(name.startswith("rescue/") for name in others)
    for name in names:
        assert found[f"mismatch/{name}"] == pytest.approx(others[f"mismatch/{name}"], rel=1e-5, abs=1e-7), name
        assert found[f"rescue/{name}"] == pytest.approx(alone[f"mismatch/{name}"], rel=1e-5, abs=1e-7), name
    assert found["rescue/logprob_gap_mean"] != pytest.approx(found["mismatch/logprob_gap_mean"], rel=0.01)
