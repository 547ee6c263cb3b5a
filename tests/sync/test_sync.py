import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from benchmarks.models.tiny import tiny_config, tiny_model
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig, SyncConfig
from polaris.rollout.engine import create_engine
from polaris.sync.probe import (
    RESPONSES,
    WeightSyncError,
    Yardstick,
    check_far_gap,
    check_gap,
    logprob_gap,
    make_far_probe,
    make_sync_probe,
    take_yardstick,
)
from polaris.sync.publish import publish
from polaris.types import Prompt

PROMPTS = [
    Prompt(id=str(i), text="", tokens=tuple((7 * i + j) % 94 + 2 for j in range(1 + i % 5)), ground_truth="", source="") for i in range(50)
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def logprobs(model, requests, rollouts):
    """Of all response tokens, one response after the other, by transformers alone."""
    found = []
    for request, rollout in zip(requests, rollouts, strict=True):
        ids = torch.tensor([[*request.prompt_tokens, *rollout.tokens.tolist()]])
        picked = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        found.append(picked[len(request.prompt_tokens) - 1 :].numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("kind", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_probe_tells_published_from_stale_weights(kind, policy):
    if kind == "vllm":
        pytest.importorskip("vllm")
    rollout = RolloutConfig(engine=kind, kv_cache_mib=16, max_concurrent=4)
    engine = create_engine(rollout, policy, ModelConfig(dtype="float32"), max_model_len=64, seed=0)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    probe = make_sync_probe(PROMPTS, seed=0, most_tokens=20)
    drawn = probe.draw(engine)
    assert len(drawn) == RESPONSES
    yardstick = take_yardstick(logprob_gap(drawn, logprobs(model, probe.requests, drawn)), SyncConfig(), "float32")
    assert yardstick.gap < 1e-5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.002 * torch.randn_like(parameter)
    stale = logprob_gap(drawn, logprobs(model, probe.requests, drawn))
    with pytest.raises(WeightSyncError, match=r"version 4.*sync\.gap_factor"):
        check_gap(stale, yardstick, 4)
    publish(engine, model.named_parameters(), 4)
    assert engine.version == 4
    again = probe.draw(engine)
    check_gap(logprob_gap(again, logprobs(model, probe.requests, again)), yardstick, 4)
    engine.close()


def test_log_probs_that_are_not_finite_are_a_gap(policy):
    engine = create_engine(RolloutConfig(engine="transformers"), policy, ModelConfig(dtype="float32"), max_model_len=64, seed=0)
    drawn = make_sync_probe(PROMPTS, seed=0, most_tokens=4).draw(engine)
    gap = logprob_gap(drawn, np.full(sum(len(r.tokens) for r in drawn), np.nan))
    with pytest.raises(WeightSyncError, match="not finite"):
        check_gap(gap, Yardstick(gap=0.0, tolerance=1.0), 1)


def test_the_yardstick_scales_the_tolerance_within_what_rounding_and_the_base_allow():
    assert take_yardstick(0.01, SyncConfig(gap_factor=4.0), "bfloat16").tolerance == pytest.approx(0.04)
    assert 0 < take_yardstick(0.0, SyncConfig(), "bfloat16").tolerance < 0.01
    assert take_yardstick(1e-7, SyncConfig(), "float32").tolerance < 1e-4
    assert take_yardstick(0.4, SyncConfig(base_tolerance=0.5), "bfloat16").tolerance == pytest.approx(1.2)
    for gap, dtype in ((1.29e-3, "float32"), (0.4, "bfloat16"), (float("inf"), "float16"), (float("nan"), "float16")):
        with pytest.raises(WeightSyncError, match=r"base model itself.*sync\.base_tolerance"):
            take_yardstick(gap, SyncConfig(), dtype)


def test_the_probe_is_spread_over_the_prompts_with_a_seed_for_each_response():
    probe = make_sync_probe(PROMPTS, seed=3, most_tokens=1000)
    assert [request.prompt_tokens for request in probe.requests] == [PROMPTS[i].tokens for i in (0, 6, 12, 18, 25, 31, 37, 43)]
    assert [request.sample for request in probe.requests] == list(range(RESPONSES))
    assert probe.requests[1].seed == 1630406232111680392, "a probe of another seed or stream draws other responses after a resume"
    assert (probe.sampling.temperature, probe.sampling.max_tokens) == (1.0, 32)
    assert make_sync_probe(PROMPTS, seed=3, most_tokens=20).sampling.max_tokens == 20
    assert len({request.seed for request in make_sync_probe(PROMPTS[:1], seed=3, most_tokens=8).requests}) == RESPONSES


@pytest.mark.parametrize(
    ("prompts", "longest", "tokens"), [(PROMPTS, 400, 368), (PROMPTS[:1], 400, 368), (PROMPTS, 20, 10), (PROMPTS, 2, 1)]
)
def test_the_far_probe_ends_at_the_longest_sequence(prompts, longest, tokens):
    probe = make_far_probe(prompts, seed=0, longest=longest)
    (request,) = probe.requests
    assert len(request.prompt_tokens) == tokens
    assert tokens + probe.sampling.max_tokens == longest


def test_other_positions_far_from_the_first_are_caught_where_there_is_no_rotary_table(tmp_path):
    """GPT-2's learned positions: the usual probe's short responses cannot see those behind them."""
    model = tiny_model(tiny_config("gpt2", n_positions=256))
    model.save_pretrained(tmp_path)
    engine = create_engine(RolloutConfig(engine="transformers"), tmp_path, ModelConfig(dtype="float32"), max_model_len=256, seed=0)
    assert engine.rotary_table([0]) is None
    near, far = make_sync_probe(PROMPTS, seed=0, most_tokens=32), make_far_probe(PROMPTS, seed=0, longest=256)
    drawn = far.draw(engine)
    check_far_gap(logprob_gap(drawn, logprobs(model, far.requests, drawn)), SyncConfig(), "float32")
    with torch.no_grad():
        model.transformer.wpe.weight[200:] = model.transformer.wpe.weight[200:].flip(0)
    drawn = near.draw(engine)
    assert logprob_gap(drawn, logprobs(model, near.requests, drawn)) < 1e-4
    drawn = far.draw(engine)
    with pytest.raises(WeightSyncError, match="at the end of the longest sequences"):
        check_far_gap(logprob_gap(drawn, logprobs(model, far.requests, drawn)), SyncConfig(), "float32")
