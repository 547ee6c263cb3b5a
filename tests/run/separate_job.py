"""A small job whose engines have ranks of their own, and the same one colocated: what each drew."""

import pickle
from pathlib import Path

import numpy as np

HERE = Path(__file__).with_name("train_here.py")
SMALL = (
    *("--name=run", "--observe.tensorboard=false", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48"),
    *("--rollout.kv_cache_mib=32", "--rollout.max_concurrent=8", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1"),
    *("--eval.samples_per_prompt=1", '--run.hooks=["keeps_groups:Keep"]', "--distributed.wait_timeout_hours=0.1", "--optimizer.lr=3e-5"),
)
MEASURED = "--difficulty.samples_per_prompt=2"


def separate(engine_ranks, staleness):
    return "--rollout.placement=separate", f"--rollout.engine_ranks={engine_ranks}", f"--rollout.max_staleness={staleness}"


def drawn(root, step):
    """The tokens of each prompt, with a rollout of it."""
    return pickle.loads((root / "run" / f"step-{step}.pickle").read_bytes())


def assert_same_samples(root, expected, atol=1e-4):
    """Those of the first three steps."""
    for step in (1, 2, 3):
        pairs = list(zip(drawn(root, step), drawn(expected, step), strict=True))
        assert len(pairs) == 16
        for (_, ours), (_, theirs) in pairs:
            assert (ours.prompt_id, ours.sample, ours.tokens.tolist()) == (theirs.prompt_id, theirs.sample, theirs.tokens.tolist())
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=atol)
            assert ours.versions.tolist() == theirs.versions.tolist()
