from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from polaris.learn.statistics import METRICS, Statistics
from polaris_kernels import PolicyLossSettings, TokenBatch, policy_loss_of_batch


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


def test_every_metric_comes_from_a_total_that_there_is():
    tokens = TokenBatch(
        behaviour_logprob=torch.tensor([-1.0, -torch.inf, -2.0]), advantage=torch.ones(3), reference_logprob=torch.full((3,), -1.0)
    )
    logprob = torch.tensor([-1.5, -1.0, -2.25])
    totals = policy_loss_of_batch(logprob, tokens, PolicyLossSettings(correction="tis"), 1.0)[1] | {"entropy": torch.tensor(6.0)}
    statistics = Statistics()
    for group in ("policy", "mismatch", "rescue", "stale"):
        statistics.add_totals(group, totals)
    found = statistics.compute()
    assert list(found) == list(METRICS)
    assert found["policy/entropy"] == 2.0
    assert found["policy/kl_reference_k1"] == pytest.approx((-0.5 + 0 - 1.25) / 3)
    assert found["policy/kl_reference_k3"] == pytest.approx((math.expm1(0.5) - 0.5 + math.expm1(1.25) - 1.25) / 3)
    for group in ("mismatch", "rescue", "stale"):
        assert found[f"{group}/nonfinite_fraction"] == 1 / 3
        assert found[f"{group}/logprob_gap_mean"] == 0.375, "of the two tokens whose engine log-prob is a number"
        assert found[f"{group}/logprob_gap_max"] == 0.5


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
