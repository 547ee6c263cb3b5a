"""Complete training steps of the embedded model, Polaris beside TRL: same model, prompts, batch, grader, cores, in one run.

    make benchmark

The base model's responses end by themselves, at naturally different lengths. Every contestant takes turns with TRL's fastest
setting, step by step, since a machine's speed drifts; `trl_seconds` is the median of that setting's turns, `speedup` the
ratio to it. TRL runs with three micro-batch sizes and with transformers' continuous batching; its vLLM mode fails on CPU (TRL
1.16 cannot load new weights into vLLM's packed layers there).
"""

import statistics
import time

import pytest
from workload import PROMPTS, SAMPLES, Contestant

from polaris.embedded import resolve

REFERENCE = "trl-generate-32"
POLARIS = ("polaris-transformers", "polaris-vllm", "polaris-transformers-2", "polaris-vllm-2")
CONTESTANTS = (*POLARIS, REFERENCE, "trl-generate-64", "trl-generate-256", "trl-continuous-256")
WARMUP_STEPS, STEPS = 2, 10


@pytest.fixture(scope="module")
def reference():
    resolve("embedded:model")
    contestant = Contestant(REFERENCE)
    for _ in range(WARMUP_STEPS):
        contestant.step()
    yield contestant
    contestant.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_step(benchmark, reference, name):
    contestant, turns, facts = Contestant(name), [], []

    def other_turn():
        began = time.perf_counter()
        reference.step()
        turns.append(time.perf_counter() - began)

    try:
        for _ in range(WARMUP_STEPS):
            contestant.step()
        benchmark.pedantic(lambda: facts.append(contestant.step()), setup=other_turn, rounds=STEPS)
    finally:
        contestant.close()
    medians = {key: statistics.median(fact[key] for fact in facts) for key in facts[0]}
    seconds, trl_seconds = benchmark.stats.stats.median, statistics.median(turns)
    benchmark.extra_info |= {
        "trl_seconds": trl_seconds,
        "speedup": trl_seconds / seconds,
        "rollouts_per_s": PROMPTS * SAMPLES / seconds,
        "response_tokens_per_s": medians["response_tokens"] / seconds,
        **medians,
    }
    assert medians["response_tokens"] > PROMPTS * SAMPLES
