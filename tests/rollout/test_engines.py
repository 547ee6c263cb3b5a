"""Both engines against transformers' own forward pass, and the promises of the Engine protocol."""

import json
import random
import shutil
import time

import numpy as np
import pytest
import torch
from tiny_models import AHEAD, EOS, MAX_LEN, VLLM, VOCAB, ahead_too, generate, prompt, requests_for

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout import contract
from polaris.rollout.checkpoint import complete
from polaris.rollout.engine import create_engine
from polaris.rollout.types import EngineRefused, GenerationInterrupted

MIXED = [prompt(1), prompt(5, 3), prompt(17, 9), prompt(60, 2)]


def check_logprobs(requests, rollouts, models, name):
    for request, rollout in zip(requests, rollouts, strict=True):
        truth = models.logprobs(name, (*request.prompt_tokens, *rollout.tokens), rollout.temperature)
        np.testing.assert_allclose(rollout.logprobs, truth[len(request.prompt_tokens) - 1 :], atol=1e-4)


@ahead_too
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.4])
def test_logprobs_are_those_of_transformers(engine, models, temperature):
    requests = requests_for(*MIXED, samples=6)
    check_logprobs(requests, generate(engine, requests, temperature), models, "A")


@ahead_too
def test_rollouts_carry_what_was_asked(engine):
    requests = requests_for(*MIXED, samples=3)
    rollouts = generate(engine, requests, temperature=1.2)
    assert [(r.prompt_id, r.sample) for r in rollouts] == [(r.prompt_id, r.sample) for r in requests]
    assert [rollout.seed for rollout in rollouts] == [request.seed for request in requests]
    for rollout in rollouts:
        assert (rollout.tokens.dtype, rollout.logprobs.dtype, rollout.versions.dtype) == (np.int32, np.float32, np.int32)
        assert len(rollout.tokens) == len(rollout.logprobs)
        assert rollout.versions.tolist() == [0] * len(rollout.tokens)
        assert rollout.temperature == 1.2


@ahead_too
def test_samples_depend_on_their_seed_only(engine):
    requests = requests_for(*MIXED, samples=8)
    first, second = generate(engine, requests), generate(engine, list(reversed(requests)))
    for a, b in zip(first, reversed(second), strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
    alone = generate(engine, [requests[9]])[0]
    np.testing.assert_array_equal(alone.tokens, first[9].tokens)
    same_prompt = {tuple(rollout.tokens) for rollout in first[:8]}
    assert len(same_prompt) == 8


@ahead_too
def test_more_requests_than_slots(kind, build, models):
    engine = build(kind, "A", max_concurrent=5)
    requests = requests_for(*MIXED, samples=6)
    check_logprobs(requests, generate(engine, requests), models, "A")


def test_prompts_that_do_not_fit_one_prefill(engine, models):
    """vLLM 0.32 fails on CPU where a seeded request is prefilled in parts."""
    requests = requests_for(*[prompt(300, start) for start in range(0, 120, 4)])
    check_logprobs(requests, generate(engine, requests, max_tokens=4), models, "A")


def test_first_token_frequencies_are_the_softmax(engine, models):
    draws, temperature = 4000, 1.3
    rollouts = generate(engine, requests_for(prompt(9), samples=draws), temperature, max_tokens=1)
    counts = np.bincount([rollout.tokens[0] for rollout in rollouts], minlength=VOCAB)
    with torch.no_grad():
        logits = models.load("A")(torch.tensor([prompt(9)])).logits[0, -1]
    expected = draws * (logits / temperature).softmax(-1).numpy()
    rare = expected < 5
    observed, expected = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    freedom = len(observed) - 1
    assert freedom > 5
    assert ((observed - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_truncated_sampling_is_renormalised(engine, models):
    rollouts = generate(engine, requests_for(prompt(9), samples=300), max_tokens=1, top_k=20, top_p=0.7)
    with torch.no_grad():
        probabilities = models.load("A")(torch.tensor([prompt(9)])).logits[0, -1].softmax(-1)
    top, order = probabilities.topk(20)
    top = top / top.sum()
    kept = order[: int((top.cumsum(0) - top < 0.7).sum())]
    assert 1 < len(kept) < 20
    truth = dict(zip(kept.tolist(), (probabilities[kept] / probabilities[kept].sum()).log().tolist(), strict=True))
    assert {int(rollout.tokens[0]) for rollout in rollouts} <= set(truth)
    for rollout in rollouts:
        assert rollout.logprobs[0] == pytest.approx(truth[int(rollout.tokens[0])], abs=1e-4)


def test_generation_config_of_the_model_is_ignored(kind, engine, build, models):
    folder = models.root / "A-greedy"
    shutil.copytree(models.root / "A", folder, dirs_exist_ok=True)
    greedy = {"do_sample": True, "top_k": 1, "temperature": 0.01, "repetition_penalty": 1.5, "max_new_tokens": 3, "eos_token_id": [EOS, 90]}
    (folder / "generation_config.json").write_text(json.dumps(greedy))
    other = build(kind, "A-greedy")
    stopped_by_90 = 0
    for plain, tested in zip(*(generate(e, requests_for(*MIXED, samples=16)) for e in (engine, other)), strict=True):
        found = np.flatnonzero(plain.tokens == 90)
        if len(found):
            stopped_by_90 += 1
            assert tested.finish_reason == "stop"
            plain_tokens = plain.tokens[: found[0] + 1]
        else:
            plain_tokens = plain.tokens
        np.testing.assert_array_equal(plain_tokens, tested.tokens)
    assert stopped_by_90


@ahead_too
def test_finish_reasons(engine):
    rollouts = generate(engine, requests_for(*MIXED, samples=30), max_tokens=40)
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ended = rollout.finish_reason == "stop"
        assert (rollout.tokens[-1] == EOS) == ended
        assert EOS not in rollout.tokens[:-1]
        assert ended or len(rollout.tokens) == 40


@ahead_too
def test_response_is_cut_at_the_longest_sequence(engine):
    rollouts = generate(engine, requests_for(prompt(MAX_LEN - 3), samples=4), max_tokens=40)
    assert all(len(rollout.tokens) == 3 or rollout.finish_reason == "stop" for rollout in rollouts)
    assert any(len(rollout.tokens) == 3 for rollout in rollouts)


@pytest.mark.parametrize("bad", [prompt(MAX_LEN), (), (VOCAB + 1000,)], ids=["too long", "empty", "outside the vocabulary"])
def test_bad_prompt_is_refused_before_anything_runs(engine, bad):
    seen = []
    with pytest.raises(ValueError, match=r"prompt 1 "):
        generate(engine, requests_for(prompt(4), bad), on_progress=seen.append)
    assert not seen
    assert len(generate(engine, requests_for(prompt(4)))) == 1


@ahead_too
def test_interrupted_engine_is_clean(engine):
    requests = requests_for(*MIXED, samples=8)
    whole = generate(engine, requests)
    polls = iter(range(100))
    with pytest.raises(GenerationInterrupted):
        generate(engine, requests_for(*MIXED, samples=40, seed=77), should_stop=lambda: next(polls) == 7)
    for a, b in zip(whole, generate(engine, requests), strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)


@ahead_too
def test_progress_is_live_and_ends_complete(engine):
    seen = []
    rollouts = generate(engine, requests_for(*MIXED, samples=64), max_tokens=200, on_progress=seen.append)
    assert seen[-1].finished == seen[-1].total == len(rollouts)
    assert seen[-1].tokens == sum(len(rollout.tokens) for rollout in rollouts)
    assert len(seen) > 1
    assert [p.tokens for p in seen] == sorted(p.tokens for p in seen)


@ahead_too
def test_no_requests(engine):
    assert generate(engine, []) == []


@ahead_too
def test_score_is_that_of_transformers(engine, models):
    np.testing.assert_allclose(engine.score(prompt(50)), models.logprobs("A", prompt(50)), atol=1e-4)


def test_random_generators_of_the_trainer_are_left_alone(kind, build):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), torch.set_num_threads
    engine = build(kind, "A")
    generate(engine, requests_for(prompt(4), samples=4))
    engine.score(prompt(10))
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.set_num_threads is before[3]


@ahead_too
@pytest.mark.parametrize(("old", "new"), [("A", "B"), ("UA", "UB")], ids=["tied", "untied"])
def test_new_weights_replace_all_of_the_old(kind, shared, models, old, new):
    engine = shared(kind, old)
    long = prompt(300)
    generate(engine, requests_for(long, samples=2))
    engine.load_weights(((name, tensor.clone()) for name, tensor in models.load(new).named_parameters()), 7)
    np.testing.assert_allclose(engine.score(long), models.logprobs(new, long), atol=1e-4)
    requests = requests_for(long, samples=4)
    rollouts = generate(engine, requests)
    check_logprobs(requests, rollouts, models, new)
    assert engine.version == 7
    assert {rollout.version for rollout in rollouts} == {7}


def test_float32_weights_into_a_bfloat16_engine(kind, build, models):
    engine = build(kind, "A", model=ModelConfig(dtype="bfloat16"))
    engine.load_weights(models.load("B").named_parameters(), 1)
    gap = np.abs(engine.score(prompt(50)) - models.logprobs("B", prompt(50)))
    assert gap.mean() < 0.1
    assert np.abs(models.logprobs("A", prompt(50)) - models.logprobs("B", prompt(50))).mean() > 1


def half(weights):
    return weights[:-1], "not published"


def twice(weights):
    return [*weights, weights[0]], "sent twice"


def unknown(weights):
    return [("model.nonsense.weight", weights[0][1]), *weights], "unknown"


def misshapen(weights):
    return [(weights[0][0], weights[0][1][:-1]), *weights[1:]], "shape"


@pytest.mark.parametrize("spoil", [half, twice, unknown, misshapen])
def test_wrong_weights_are_named(models, spoil):
    weights, message = spoil(list(models.load("B").named_parameters()))
    with pytest.raises(RuntimeError, match=message):
        list(complete(weights, {name: weight.shape for name, weight in models.load("A").named_parameters()}))


@pytest.mark.parametrize("spoil", [half, misshapen], ids=["at their end", "on the way"])
def test_wrong_weights_close_the_engine(kind, build, models, spoil):
    engine = build(kind, "A")
    weights, message = spoil(list(models.load("B").named_parameters()))
    with pytest.raises(RuntimeError, match=message):
        engine.load_weights(weights, 1)
    with pytest.raises(RuntimeError, match="closed"):
        generate(engine, requests_for(prompt(4)))


@pytest.mark.vllm
def test_settings_that_vllm_refuses_are_one_line(models):
    pytest.importorskip("vllm")
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=10**9)
    with pytest.raises(EngineRefused, match=r"rollout\.kv_cache_mib") as refused:
        create_engine(rollout, models.root / "A", ModelConfig(dtype="float32"), max_model_len=64, seed=0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [VLLM, AHEAD], indirect=True)
def test_failure_inside_vllm_closes_the_engine(kind, build, monkeypatch):
    engine = build(kind, "A")
    runner = engine._llm.model_executor.driver_worker.worker.model_runner

    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(runner, "execute_model", fail)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="out of luck"):
        generate(engine, requests_for(prompt(4)))
    with pytest.raises(RuntimeError, match="closed"):
        generate(engine, requests_for(prompt(4)))
    assert time.monotonic() - start < 10


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_mode_is_not_the_engines(engine, deterministic):
    """On CUDA the running sums of sampling have no deterministic kernel."""
    modes = []
    generate(engine, requests_for(prompt(5)), on_progress=lambda progress: modes.append(torch.are_deterministic_algorithms_enabled()))
    assert modes
    assert not any(modes)
    assert torch.are_deterministic_algorithms_enabled()


def test_vllm_is_built_outside_deterministic_mode(build, deterministic, monkeypatch):
    """On CUDA vLLM 0.24 cannot compile a model in it: Inductor refuses to time combined kernels."""
    llm_engine = pytest.importorskip("vllm").LLMEngine
    original, modes = llm_engine.from_engine_args, []

    def record(arguments):
        modes.append(torch.are_deterministic_algorithms_enabled())
        return original(arguments)

    monkeypatch.setattr(llm_engine, "from_engine_args", record)
    build("vllm", "A", max_concurrent=4)
    assert modes == [False]
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("kind", [AHEAD], indirect=True)
def test_weights_come_in_flight_also_where_steps_are_scheduled_ahead(kind, build, models):
    engine = build(kind, "A", max_concurrent=8, max_model_len=contract.LONGEST)
    contract.exchanges(contract.Trial(engine, models.load("A"), (EOS,)))
