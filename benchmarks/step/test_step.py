"""Complete training steps of the embedded model, Polaris beside TRL: same model, prompts, batch, grader, cores, in one run.

    make benchmark

The base model's responses end by themselves, at naturally different lengths.
"""

import statistics

import pytest
from workload import PROMPTS, SAMPLES, Contestant

from polaris.embedded import resolve

# TRL with several micro-batch sizes, and with transformers' continuous batching; its vLLM mode fails on CPU (weight update, TRL 1.16).
CONTESTANTS = ("polaris-transformers", "polaris-vllm", "trl-generate-256", "trl-generate-64", "trl-generate-32", "trl-continuous-256")
WARMUP_STEPS, STEPS = 2, 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_step(benchmark, name):
    resolve("embedded:model")
    contestant = Contestant(name)
    facts = []
    try:
        benchmark.pedantic(lambda: facts.append(contestant.step()), rounds=STEPS, warmup_rounds=WARMUP_STEPS)
    finally:
        contestant.close()
    medians = {key: statistics.median(fact[key] for fact in facts[WARMUP_STEPS:]) for key in facts[-1]}
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= medians | {
        "rollouts_per_s": PROMPTS * SAMPLES / seconds,
        "response_tokens_per_s": medians["response_tokens"] / seconds,
    }
    assert medians["response_tokens"] > PROMPTS * SAMPLES
