"""Two torchrun ranks share one vLLM engine, then train on: the process group must survive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import os, sys
import numpy as np, torch, torch.distributed as dist
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.rollout.engine import create_engine
from polaris.rollout.types import GenerationInterrupted
from tiny_models import Models, generate, prompt, requests_for
from pathlib import Path

dist.init_process_group("gloo")
rank, degree, models = dist.get_rank(), int(sys.argv[2]), Models(Path(sys.argv[1]))
rollout = RolloutConfig(engine="vllm", tensor_parallel=degree, kv_cache_mib=32, max_concurrent=16)
for _ in range(3 - degree):
    engine = create_engine(rollout, models.root / "A", ModelConfig(dtype="float32"), max_model_len=400, seed=0)
    engine.load_weights(models.load("B").named_parameters(), 3)
    requests = requests_for(prompt(5), prompt(9), samples=4, seed=0 if degree == 2 else rank)
    rollouts = generate(engine, requests)
    for request, rollout_ in zip(requests, rollouts):
        whole = (*request.prompt_tokens, *rollout_.tokens)
        np.testing.assert_allclose(rollout_.logprobs, models.logprobs("B", whole)[len(request.prompt_tokens) - 1 :], atol=1e-4)
    mine = [rollout_.tokens.tolist() for rollout_ in rollouts]
    theirs = [None, None]
    dist.all_gather_object(theirs, mine)
    assert (theirs[0] == theirs[1]) == (degree == 2)
    if degree == 2:
        polls = iter(range(1000))
        try:
            generate(engine, requests, should_stop=lambda: rank == 1 and next(polls) == 5)
            raise AssertionError("rank 1's wish to stop was lost")
        except GenerationInterrupted:
            pass
        assert [rollout_.tokens.tolist() for rollout_ in generate(engine, requests)] == mine
    engine.close()
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == 2
dist.destroy_process_group()
os.write(1, b"rank %d done; " % rank)  # one write: the ranks share the pipe
"""


@pytest.fixture
def killed():
    """What a torchrun that was killed leaves, under the name that vLLM gives it on its own."""
    left = [Path(f"/dev/shm/-tp:0-[0-1]-cpushm_{rank}") for rank in (0, 1)]
    mine = [path for path in left if not path.exists()]
    for path in mine:
        path.write_bytes(bytes(4096))
    yield
    for path in mine:
        path.unlink(missing_ok=True)


@pytest.mark.distributed
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("degree", [1, 2], ids=["one engine per rank", "one engine for both"])
def test_two_ranks(models, tmp_path, degree):
    pytest.importorskip("vllm")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, models.root, str(degree)],
        env=os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "rank 0 done" in result.stdout
    assert "rank 1 done" in result.stdout
