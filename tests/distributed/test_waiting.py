"""Of two ranks, the one that waits for the other measures how much faster its own layers were, though both end an update together."""

import json
from pathlib import Path

import pytest
from programs import run_ranks
from slow_rank import PAUSE_S

from polaris.distributed.waiting import share_waited

LAYERS = 2  # of the tiny model


def test_ranks_wait_in_each_pass_for_the_slowest_of_it():
    assert share_waited([[3, 1], [1, 3]]) == pytest.approx(1 / 3)
    assert share_waited([[2, 2], [2, 2]]) == 0
    assert share_waited([[4], [0], [0], [0]]) == pytest.approx(3 / 4)
    assert share_waited([[], []]) == 0


@pytest.mark.distributed
def test_a_slow_rank_is_found_by_the_time_of_its_own_layers(tiny_qwen3):
    fast, slow = map(json.loads, run_ranks(2, Path(__file__).with_name("slow_rank.py"), tiny_qwen3))
    paused = LAYERS * slow["packs"] * PAUSE_S
    assert len(fast["seconds"]) == len(slow["seconds"]) == slow["packs"]
    assert sum(slow["seconds"]) >= paused
    assert fast["took"] >= paused, "collectives hold the fast rank up"
    assert sum(fast["seconds"]) < paused / 2, "which its layers' own time does not count"
    assert 0.25 < share_waited([fast["seconds"], slow["seconds"]]) < 0.5
