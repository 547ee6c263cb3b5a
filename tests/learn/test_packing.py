import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import training_sample

from polaris.learn.packing import build_pack, karmarkar_karp, plan_packs

LENGTHS = st.lists(st.integers(1, 5000), max_size=60)


def make_sample(prompt, response, advantage=1.0, temperature=0.7):
    logprobs = -np.arange(1, len(response) + 1, dtype=np.float32)
    return training_sample(
        prompt_tokens=tuple(prompt), tokens=np.array(response, np.int32), logprobs=logprobs, advantage=advantage, temperature=temperature
    )


@given(LENGTHS, st.integers(1, 9))
def test_karmarkar_karp_places_every_index_once(lengths, parts):
    result = karmarkar_karp(lengths, parts)
    assert len(result) == parts
    assert sorted(i for part in result for i in part) == list(range(len(lengths)))
    assert result == karmarkar_karp(list(lengths), parts)


def test_karmarkar_karp_beats_dealing_in_order():
    generator = np.random.default_rng(0)
    costs = generator.lognormal(8, 1, 512).tolist()
    totals = [sum(costs[i] for i in part) for part in karmarkar_karp(costs, 8)]
    assert max(totals) / (sum(costs) / 8) < 1.001
    dealt = [sum(costs[i::8]) for i in range(8)]
    assert max(totals) < max(dealt)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 5), st.integers(100, 6000))
def test_plan_covers_all_within_budget(lengths, ranks, budget):
    plan = plan_packs(lengths, ranks, budget)
    assert len(plan) == ranks
    assert len({len(packs) for packs in plan}) == 1
    assert sorted(i for packs in plan for pack in packs for i in pack) == list(range(len(lengths)))
    for packs in plan:
        for pack in packs:
            assert len(pack) <= 1 or sum(lengths[i] for i in pack) <= budget


def test_the_most_costly_pack_comes_first_and_not_that_with_the_most_tokens():
    """One response of 30,000 tokens costs 84,932, three of 10,400 cost 51,005 together."""
    (packs,) = plan_packs([10400] * 3 + [30000], 1, 31200)
    assert packs == [[3], [0, 1, 2]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=60), st.integers(1, 5), st.integers(100, 60_000), st.randoms())
def test_no_order_of_the_packs_lets_ranks_wait_less(lengths, ranks, budget, random):
    """The k-th packs of all ranks wait for the most costly of them."""

    def seconds(plan):
        costs = [[sum(lengths[i] + lengths[i] ** 2 / 16384 for i in pack) for pack in rank] for rank in plan]
        return sum(map(max, zip(*costs, strict=True)))

    plan = plan_packs(lengths, ranks, budget)
    shuffled = [random.sample(rank, len(rank)) for rank in plan]
    assert seconds(plan) <= seconds(shuffled) * (1 + 1e-12)


def test_ranks_are_balanced_by_cost_which_grows_with_the_square_of_the_length():
    """One response of 32,768 tokens costs 32,768 * (1 + 2), one of 1,024 costs 1,024 * (1 + 1 / 16): as much as 90 of them."""
    plan = plan_packs([32768] + [1024] * 96, 2, 65536)
    (long_rank,) = (rank for rank in plan if any(0 in pack for pack in rank))
    assert sum(map(len, long_rank)) == 1 + 3
    lengths = np.random.default_rng(1).lognormal(8.5, 1.2, 256).clip(1, 90_000).astype(int).tolist()
    shares = [[lengths[i] for pack in rank for i in pack] for rank in plan_packs(lengths, 8, 100_000)]
    costs = [sum(n + n * n / 16384 for n in share) for share in shares]
    tokens = [sum(share) for share in shares]
    assert max(costs) / (sum(costs) / 8) < 1.01
    assert max(tokens) / (sum(tokens) / 8) > 1.1, "as many tokens for all would not be balanced"


def test_packs_of_a_rank_hold_about_as_many_tokens_and_are_no_more_than_needed():
    (packs,) = plan_packs([600, 500, 400, 300, 200, 100], 1, 1100)
    assert sorted(sum([600, 500, 400, 300, 200, 100][i] for i in pack) for pack in packs) == [1000, 1100]
    assert plan_packs([10] * 4, 1, 40) == [[[0, 1, 2, 3]]]


def test_pack_tensors():
    samples = [make_sample([5, 6], [7, 8, 9], 1.5, 0.6), make_sample([3], [4, 2], -0.5, 1.4)]
    pack = build_pack(samples, torch.device("cpu"))
    assert pack.tokens.tolist() == [5, 6, 7, 8, 9, 3, 4, 2]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert pack.layout.cu_seqlens.tolist() == [0, 5, 8]
    assert pack.rows.tolist() == [1, 2, 3, 5, 6]
    assert pack.batch.targets.tolist() == pack.tokens[pack.rows + 1].tolist() == [7, 8, 9, 4, 2]
    assert pack.batch.sequence_lengths.tolist() == [3, 2]
    assert pack.batch.advantage.tolist() == [1.5] * 3 + [-0.5] * 2
    assert pack.batch.behaviour_logprob.tolist() == [-1, -2, -3, -1, -2]
    torch.testing.assert_close(pack.batch.temperature, torch.tensor([0.6] * 3 + [1.4] * 2))


def test_empty_pack_trains_nothing():
    pack = build_pack([], torch.device("cpu"))
    assert pack.tokens.shape == (1,)
    assert pack.rows.numel() == pack.batch.targets.numel() == pack.batch.advantage.numel() == 0


def test_tokens_that_the_policy_did_not_choose_are_read_and_not_trained_on():
    """A tool's output in the middle of a response: it stands in the sequence, without a row, a target or a weight of its own."""
    mask = np.array([True, False, False, True])
    masked = training_sample((5, 6), (7, 8, 9, 10), (-1.0, 0.0, 0.0, -2.0), 0.5, 0.7, mask=mask)
    pack = build_pack([masked, training_sample((1,), (2, 3), (-3.0, -4.0), -1.0, 1.0)], torch.device("cpu"))
    assert pack.tokens.tolist() == [5, 6, 7, 8, 9, 10, 1, 2, 3]
    assert pack.rows.tolist() == [1, 4, 6, 7]
    assert pack.batch.targets.tolist() == [7, 10, 2, 3]
    assert pack.batch.behaviour_logprob.tolist() == [-1.0, -2.0, -3.0, -4.0]
    assert pack.batch.advantage.tolist() == [0.5, 0.5, -1.0, -1.0]
    assert pack.batch.sequence_lengths.tolist() == [2, 2]
