"""Two ranks share one vLLM engine, then train on: the process group must survive."""

from pathlib import Path

import pytest
from programs import run_ranks

WORKER = Path(__file__).with_name("engine_on_ranks.py")


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
def test_two_ranks(models, degree):
    pytest.importorskip("vllm")
    for number, said in enumerate(run_ranks(2, WORKER, models.root, str(degree))):
        assert said == f"rank {number} done\n"
