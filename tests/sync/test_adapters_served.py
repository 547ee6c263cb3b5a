"""Adapters in the real engines, beside the model's weights or merged, and the proof that they are there: planted faults stop the run."""

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.lora import LoraConfig
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig, SyncConfig
from polaris.config.schema import RunConfig
from polaris.learn.learner import Learner
from polaris.model.adapters import adapted_layers, fill, shaken_adapters
from polaris.rollout.engine import create_engine
from polaris.run.load_policy import load_policy
from polaris.sync.challenge import challenge
from polaris.sync.held import check_held, first_difference
from polaris.sync.probe import WeightSyncError, make_sync_probe, take_yardstick
from polaris.sync.publish import SyncProof, measure_gap, publish
from polaris.types import Prompt

PROMPTS = [Prompt(id=str(i), text="", tokens=tuple((7 * i + j) % 94 + 2 for j in range(5)), ground_truth="", source="") for i in range(9)]
TOKENS = [(5 * i) % 89 + 3 for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


class Job:
    """A learner with adapters, the engine that they are published to, and the proof."""

    def __init__(self, folder, world, kind, sync, dtype="float32", rank=5):
        self.world = world
        lora = LoraConfig(rank=rank, alpha=7.0, sync=sync)
        self.config = RunConfig(model=ModelConfig(path=str(folder), dtype=dtype, lora=lora))
        rollout = RolloutConfig(engine=kind, kv_cache_mib=16, max_concurrent=4)
        self.engine = create_engine(rollout, folder, self.config.model, max_model_len=64, seed=0)
        policy, _ = load_policy(folder, self.config, world, longest=64)
        self.learner = Learner(policy=policy, optimizer=None, config=self.config, world=world)
        probe = make_sync_probe(PROMPTS, seed=0, most_tokens=20)
        yardstick = take_yardstick(measure_gap(self.engine, probe, self.learner.logprobs, world), SyncConfig(), dtype)
        held = self.learner.weights if sync == "adapter" else None
        self.proof = SyncProof(probe=probe, yardstick=yardstick, trainer_logprobs=self.learner.logprobs, held=held, dtype=dtype)

    def challenge(self):
        return challenge(self.engine, self.proof, self.learner.policy, self.learner.weights, 0, self.world)

    def publish(self, version):
        publish(self.engine, self.learner.weights(), version)
        return self.proof.check(self.engine, version, self.world)

    def move(self, size):
        """B as after updates: random numbers of this size, small beside W."""
        torch.manual_seed(1)
        for adapter in adapted_layers(self.learner.policy).values():
            fill(adapter.b, size * torch.randn(adapter.b.shape))


@pytest.fixture
def job(request, folder, world):
    if request.param[0] == "vllm":
        pytest.importorskip("vllm")
    job = Job(folder, world, *request.param)
    yield job
    job.engine.close()


VLLM = pytest.mark.vllm
BESIDE = pytest.param(("vllm", "adapter"), marks=VLLM, id="vllm beside")
MERGED = pytest.param(("vllm", "merged"), marks=VLLM, id="vllm merged")
ROUNDED = pytest.param(("vllm", "adapter", "bfloat16"), marks=VLLM, id="vllm beside, bfloat16")
SLOW = pytest.param(("transformers", "merged"), id="transformers merged")


@pytest.mark.parametrize("job", [BESIDE, MERGED, ROUNDED, SLOW], indirect=True)
def test_what_is_published_is_what_the_engine_draws_by(job):
    gap, shift = job.challenge()
    assert shift > 4 * job.proof.yardstick.tolerance
    assert gap < shift / 20
    base = np.copy(job.engine.score(TOKENS))
    for version, size in ((1, 0.1), (2, 0.2)):
        if version == 2:
            job.engine.sleep()
        job.move(size)
        assert job.publish(version) <= job.proof.yardstick.tolerance
        assert np.abs(job.engine.score(TOKENS) - base).mean() > 10 * job.proof.yardstick.tolerance, "an earlier prefix is not used again"
        assert job.engine.version == version


@pytest.mark.vllm
def test_beside_and_merged_are_the_same_policy(folder, world):
    pytest.importorskip("vllm")
    scores = []
    for sync in ("adapter", "merged"):
        job = Job(folder, world, "vllm", sync)
        job.move(0.1)
        job.publish(1)
        scores.append(np.copy(job.engine.score(TOKENS)))
        job.engine.close()
    np.testing.assert_allclose(*scores, rtol=0, atol=2e-5)


def dropped(engine, weights, version):
    """The fault of verl #7495: weights are gathered, the version counts up, and the engine has nothing of it."""
    for _ in weights:
        pass
    engine._version = version


@pytest.mark.parametrize("job", [BESIDE, MERGED, SLOW], indirect=True)
def test_adapters_that_never_reach_the_engine_stop_the_run_before_its_first_step(job, monkeypatch):
    monkeypatch.setattr(type(job.engine), "load_weights", dropped)
    with pytest.raises(WeightSyncError, match="adapters do not reach the engine"):
        job.challenge()


@pytest.mark.parametrize("job", [SLOW], indirect=True)
def test_weights_without_adapters_stop_the_run_before_its_first_step(job, monkeypatch):
    monkeypatch.setattr("polaris.model.adapters.Adapter.merged", lambda adapter, weight: weight)
    with pytest.raises(WeightSyncError, match="adapters do not reach the engine"):
        job.challenge()


@pytest.mark.parametrize("job", [ROUNDED], indirect=True)
def test_a_later_publication_that_is_dropped_stops_the_run_though_it_is_less_than_rounding(job, monkeypatch):
    job.move(1e-3)
    job.publish(1)
    job.move(1.02e-3)
    gap = measure_gap(job.engine, job.proof.probe, job.learner.logprobs, job.world)
    assert gap <= job.proof.yardstick.tolerance, "no log-prob shows it"
    monkeypatch.setattr(type(job.engine), "load_weights", dropped)
    with pytest.raises(WeightSyncError, match=r"version 2, the engine does not hold .*lora_B\.weight are others"):
        job.publish(2)


@pytest.mark.parametrize("job", [BESIDE], indirect=True)
def test_an_adapter_that_requests_do_not_ask_for_stops_the_run(job, monkeypatch):
    monkeypatch.setattr(type(job.engine), "_lora_request", None)
    with pytest.raises(WeightSyncError, match="adapters do not reach the engine"):
        job.challenge()


def test_what_differs_is_named(world):
    published = [("a", torch.tensor([1.0, 2.0])), ("b", torch.tensor([3.0, 0.0]))]
    held = {name: tensor.clone() for name, tensor in published}
    assert first_difference(held, iter(published), "bfloat16") == ""
    assert first_difference(held | {"a": torch.tensor([1.007, 2.0])}, iter(published), "bfloat16") == ""
    assert first_difference(held | {"a": torch.tensor([1.009, 2.0])}, iter(published), "bfloat16") == "1 of 2 numbers of a are others"
    assert first_difference(held | {"b": torch.tensor([3.0, torch.nan])}, iter(published), "float32") == "1 of 2 numbers of b are others"
    assert first_difference({"b": held["b"]}, iter(published), "float32") == "a is not there"
    # What the first step of a small learning rate adds, which float16 holds below its normal numbers.
    first = torch.tensor([1e-5, -1e-5])
    assert first_difference({"b": first.half().float()}, iter([("b", first)]), "float16") == ""
    assert first_difference({"b": torch.zeros(2)}, iter([("b", first)]), "float16") == "2 of 2 numbers of b are others"
    with pytest.raises(WeightSyncError, match=r"version 3.*a is not there"):
        check_held(object(), lambda: iter(published), 3, "float32", world)


@pytest.mark.parametrize("job", [SLOW], indirect=True)
def test_the_trial_leaves_adapters_as_they_were(job):
    before = [(name, value.clone()) for name, value in job.learner.policy.named_adapters()]
    job.challenge()
    with shaken_adapters(job.learner.policy, 0, 0.1):
        assert not all(torch.equal(value, now) for (_, value), (_, now) in zip(before, job.learner.policy.named_adapters(), strict=True))
    assert all(torch.equal(value, now) for (_, value), (_, now) in zip(before, job.learner.policy.named_adapters(), strict=True))
