"""torchrun's restart of all ranks (`--max-restarts`), as their process groups see it."""

import os
from pathlib import Path

import pytest
import torch.distributed as dist
from programs import Program

MEET = Path(__file__).with_name("meet.py")


@pytest.mark.distributed
@pytest.mark.timeout(120)
def test_ranks_that_are_started_again_do_not_look_for_those_of_before():
    """torchrun's store outlives the ranks, and the places where they were met are still in it."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for attempt in "01":
        shared = os.environ | torchrun | {"TORCHELASTIC_RESTART_COUNT": attempt}
        ranks = [Program(MEET, str(1 - rank), environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
        try:
            assert [rank.wait(60) for rank in ranks] == [0, 0], [rank.communicate() for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.communicate()[0] for rank in ranks] == ["[0, 1]\n"] * 2
