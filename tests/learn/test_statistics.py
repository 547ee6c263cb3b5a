from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from polaris.learn.statistics import Statistics


def filled() -> Statistics:
    statistics = Statistics()
    statistics.add_mean("policy/entropy", 6.0, 2)
    statistics.add_mean("policy/entropy", torch.tensor(1.0, requires_grad=True), torch.tensor(2))
    statistics.add_max("policy/ratio_max", 1.5)
    statistics.add_max("policy/ratio_max", torch.tensor(1.25))
    return statistics


def test_means_weigh_counts_and_maxima_keep_the_largest():
    assert filled().compute() == {"policy/entropy": 1.75, "policy/ratio_max": 1.5}


def test_merge():
    statistics, other = filled(), Statistics()
    other.add_mean("policy/entropy", 13.0, 1)
    other.add_max("policy/ratio_max", 9.0)
    statistics.merge(other)
    statistics.merge(Statistics())
    assert statistics.compute() == {"policy/entropy": 4.0, "policy/ratio_max": 9.0}


def test_nothing_added_is_left_out():
    statistics = Statistics()
    statistics.add_mean("policy/entropy", 0.0, 0)
    assert statistics.compute() == {}


def test_a_nan_stays_visible():
    statistics = filled()
    statistics.add_max("policy/ratio_max", math.nan)
    statistics.add_max("policy/ratio_max", 2.0)
    assert math.isnan(statistics.compute()["policy/ratio_max"])


def test_names_are_fixed():
    with pytest.raises(KeyError):
        Statistics().add_mean("policy/entropi", 1.0, 1)


def test_alone_all_reduce_changes_nothing():
    statistics = filled()
    statistics.all_reduce(torch.device("cpu"))
    assert statistics.compute() == filled().compute()


def reduce_on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    statistics = filled() if rank == 0 else Statistics()
    statistics.all_reduce(torch.device("cpu"))
    assert statistics.compute() == filled().compute()
    more = filled()
    more.add_mean("policy/clip_low", float(rank), 1)
    more.add_mean("policy/entropy", 9.0 * rank, rank)
    more.add_max("policy/ratio_max", 1.0 + rank)
    more.all_reduce(torch.device("cpu"))
    # 7 of 4 on both ranks and 9 of 1 on the second; the largest of 1.5, 1, 1.5 and 2.
    assert more.compute() == {"policy/clip_low": 0.5, "policy/entropy": 23 / 9, "policy/ratio_max": 2.0}
    dist.destroy_process_group()


@pytest.mark.distributed
def test_a_rank_without_a_pack_takes_part(tmp_path):
    mp.spawn(reduce_on_rank, args=(str(tmp_path),), nprocs=2)
