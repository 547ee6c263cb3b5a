"""The numbers by which a sync is judged: tolerances at their edges, the positions of a rotary table, the prompts that are drawn."""

import math

import numpy as np
import pytest

from polaris.config.rollout import SyncConfig
from polaris.model.rope_check import sampled_positions
from polaris.rollout.types import request_seed
from polaris.sync.probe import WeightSyncError, check_gap, logprob_gap, make_far_probe, make_sync_probe, take_yardstick
from polaris.types import Prompt, Rollout

LIMITS = SyncConfig(gap_factor=3.0)


@pytest.mark.parametrize(("dtype", "most", "rounding"), [("float32", 3e-4, 3e-6), ("bfloat16", 0.25, 1e-3), ("float16", 0.25, 2e-4)])
def test_the_base_model_may_be_as_far_apart_as_its_dtype_explains(dtype, most, rounding):
    assert take_yardstick(most, LIMITS, dtype).tolerance == 3 * most
    assert take_yardstick(0.0, LIMITS, dtype).tolerance == 3 * rounding, "a gap of 0 still lets later ones round"
    with pytest.raises(WeightSyncError, match="on the base model itself"):
        take_yardstick(math.nextafter(most, 1), LIMITS, dtype)
    with pytest.raises(WeightSyncError, match="on the base model itself"):
        take_yardstick(math.nan, LIMITS, dtype)
    given = SyncConfig(gap_factor=2.0, base_tolerance=2 * most)
    assert take_yardstick(1.5 * most, given, dtype).tolerance == 3 * most


def test_a_later_gap_may_be_the_tolerance_and_no_more():
    yardstick = take_yardstick(1e-4, LIMITS, "float32")
    check_gap(yardstick.tolerance, yardstick, 3)
    with pytest.raises(WeightSyncError, match=r"version 3.*serves other"):
        check_gap(math.nextafter(yardstick.tolerance, 1), yardstick, 3)
    with pytest.raises(WeightSyncError, match="not finite"):
        check_gap(math.inf, yardstick, 3)


def rollout(*logprobs):
    values = np.array(logprobs, np.float32)
    return Rollout(
        prompt_id="",
        sample=0,
        tokens=np.zeros(len(values), np.int32),
        logprobs=values,
        finish_reason="stop",
        versions=np.zeros(len(values), np.int32),
        temperature=1.0,
        seed=0,
    )


def test_the_gap_is_the_mean_distance_of_all_tokens():
    assert logprob_gap([rollout(-1.0, -2.0), rollout(-4.0)], np.array([-1.5, -1.0, -4.0])) == pytest.approx(0.5)
    assert logprob_gap([rollout(-1.0, math.nan)], np.array([-1.0, -1.0])) == math.inf
    assert logprob_gap([rollout(-1.0)], np.array([-math.inf])) == math.inf


@pytest.mark.parametrize(
    ("count", "positions"), [(1, [0]), (2, [0, 1]), (8, [0, 1, 2, 4, 7]), (9, [0, 1, 2, 4, 8]), (40, [0, 1, 2, 4, 8, 16, 32, 39])]
)
def test_positions_are_powers_of_two_and_the_last(count, positions):
    assert sampled_positions(count) == positions


def test_the_probe_is_eight_prompts_spread_over_the_set():
    prompts = [Prompt(id=f"p{i}", text="", tokens=(i,), ground_truth="1", source="x:1") for i in range(20)]
    probe = make_sync_probe(prompts, 5, 100)
    assert [request.prompt_tokens for request in probe.requests] == [(0,), (2,), (5,), (7,), (10,), (12,), (15,), (17,)]
    assert [request.sample for request in probe.requests] == list(range(8))
    assert len({request.seed for request in probe.requests}) == 8
    assert (probe.sampling.temperature, probe.sampling.max_tokens) == (1.0, 32)
    assert make_sync_probe(prompts[:3], 5, 7).sampling.max_tokens == 7
    assert [request.prompt_tokens for request in make_sync_probe(prompts[:3], 5, 7).requests] == [(0,)] * 3 + [(1,)] * 3 + [(2,)] * 2


def test_the_far_probe_ends_at_the_longest_position():
    prompts = [Prompt(id=f"p{i}", text="", tokens=(i,), ground_truth="1", source="x:1") for i in range(20)]
    probe = make_far_probe(prompts, 5, 24)
    (request,) = probe.requests
    assert request.prompt_tokens == (0, 1, 2, 3) * 3, "of an eighth as many prompts as positions, over and over"
    assert (probe.sampling.temperature, probe.sampling.max_tokens) == (1.0, 12)
    assert request.seed == request_seed(5, "far", 0, "", 0)
    (long,) = make_far_probe(prompts, 5, 1000).requests
    assert len(long.prompt_tokens) == 1000 - 32
