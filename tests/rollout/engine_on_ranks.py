"""A rank of two: an engine for both (degree 2), or one for each, made twice: `engine_on_ranks.py MODELS DEGREE`."""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tiny_models import Models, generate, prompt, requests_for

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import create_engine
from polaris.rollout.types import GenerationInterrupted

dist.init_process_group("gloo")
rank, degree, models = dist.get_rank(), int(sys.argv[2]), Models(Path(sys.argv[1]))
rollout = RolloutConfig(engine="vllm", tensor_parallel=degree, kv_cache_mib=32, max_concurrent=16)
for _ in range(3 - degree):
    engine = create_engine(rollout, models.root / "A", ModelConfig(dtype="float32"), max_model_len=400, seed=0)
    engine.load_weights(models.load("B").named_parameters(), 3)
    requests = requests_for(prompt(5), prompt(9), samples=4, seed=0 if degree == 2 else rank)
    rollouts = generate(engine, requests)
    for request, rollout_ in zip(requests, rollouts, strict=True):
        whole = (*request.prompt_tokens, *rollout_.tokens)
        np.testing.assert_allclose(rollout_.logprobs, models.logprobs("B", whole)[len(request.prompt_tokens) - 1 :], atol=1e-4)
    mine = [rollout_.tokens.tolist() for rollout_ in rollouts]
    theirs = [None, None]
    dist.all_gather_object(theirs, mine)
    assert (theirs[0] == theirs[1]) == (degree == 2)
    if degree == 2:
        polls = iter(range(1000))
        try:
            generate(engine, requests, should_stop=lambda polls=polls: rank == 1 and next(polls) == 5)
            raise AssertionError("rank 1's wish to stop was lost")
        except GenerationInterrupted:
            pass
        assert [rollout_.tokens.tolist() for rollout_ in generate(engine, requests)] == mine
    engine.close()
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == 2
dist.destroy_process_group()
print(f"rank {rank} done")
