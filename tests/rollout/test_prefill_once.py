"""A prompt is prefilled once for all of its samples, but for its last block, which vLLM does not share."""

import numpy as np
import pytest

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import create_engine
from polaris.rollout.types import RolloutRequest, Sampling

BLOCK, SAMPLES, ALONE = 32, 8, {"on_progress": lambda progress: None, "should_stop": lambda: False}


@pytest.mark.parametrize(
    ("most", "lengths"), [(64, (40, 64, 95)), (5, (40,))], ids=["all samples together", "samples that find no room at first"]
)
def test_tokens_of_a_prompt_are_computed_once_for_its_samples(models, most, lengths):
    rollout = RolloutConfig(engine="vllm", max_concurrent=most, kv_cache_mib=64)
    engine = create_engine(rollout, models.root / "A", ModelConfig(dtype="float32"), max_model_len=128, seed=0)
    scheduler, computed = engine._scheduler, []
    schedule = scheduler.schedule

    def counted(*arguments, **options):
        output = schedule(*arguments, **options)
        computed.append(output.total_num_scheduled_tokens)
        return output

    scheduler.schedule = counted
    try:
        for length in lengths:
            prompts = [tuple(np.random.default_rng([length, prompt]).integers(10, 90, length).tolist()) for prompt in range(4)]
            requests = [
                RolloutRequest(prompt_id=f"p{p}", sample=s, prompt_tokens=prompts[p], seed=9 * p + s)
                for p in range(4)
                for s in range(SAMPLES)
            ]
            computed.clear()
            rollouts = engine.generate(requests, Sampling(temperature=1.0, max_tokens=4), **ALONE)
            shared = (length - 1) // BLOCK * BLOCK  # the last token is always computed: it gives the first log-prob
            decoded = sum(len(rollout.tokens) - 1 for rollout in rollouts)
            assert sum(computed) == 4 * (length + (SAMPLES - 1) * (length - shared)) + decoded
    finally:
        engine.close()
