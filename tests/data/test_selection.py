"""Which prompts curation drops: a function of seed, id and counts; shapes against the figures that POLARIS published."""

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from polaris.config.recipe import CurationConfig
from polaris.data.selection import (
    CurationError,
    check_informative,
    histogram,
    informative,
    largest_subset,
    mirrored_j,
    outcome,
    prompts_to_drop,
    settled,
    share_bin,
)
from polaris.errors import Refused

# POLARIS blog, figure 2: Qwen3-4B's training set, prompts at 0/8 .. 7/8 (8/8 removed).
QWEN3_4B = [7300, 2500, 2200, 2350, 2450, 3000, 3450, 5000, 0]
# Section 1, R1-Distill-7B on DeepScaleR-40K: 8.9K at 0/8, 19K up to 4/8, 26K up to 7/8, 14.2K at 8/8; evenly in between.
R1_7B = [8900, 2525, 2525, 2525, 2525, 2333, 2333, 2334, 14200]

SIZES = st.lists(st.integers(0, 40), min_size=2, max_size=10)


def prompts(sizes):
    """Passes with `sizes` prompts at 0/n .. n/n."""
    samples = len(sizes) - 1
    return {f"{k}-{i}": (k, samples) for k, size in enumerate(sizes) for i in range(size)}


def left(measured, samples, config, seed=0):
    return set(measured) - prompts_to_drop(measured, samples, config, seed).keys()


def test_only_what_is_always_solved_goes_by_default():
    measured = {"never": (0, 8), "often": (7, 8), "always": (8, 8), "always of fewer": (3, 3), "lost": (0, 0)}
    assert prompts_to_drop(measured, 8, CurationConfig(), 0) == {"always": "easy", "always of fewer": "easy", "lost": "no_verdict"}


def test_the_limit_itself_goes():
    measured = {"below": (8, 10), "at": (9, 10), "above": (10, 10)}
    assert prompts_to_drop(measured, 10, CurationConfig(drop_from=0.9), 0) == {"at": "easy", "above": "easy"}


def test_what_is_never_solved_goes_where_that_is_asked_for():
    measured = {"never": (0, 8), "once": (1, 8), "twice": (2, 8), "always": (8, 8), "lost": (0, 0)}
    easy = {"always": "easy", "lost": "no_verdict"}
    assert prompts_to_drop(measured, 8, CurationConfig(drop_up_to=0.0), 0) == {"never": "hard", **easy}
    assert prompts_to_drop(measured, 8, CurationConfig(drop_up_to=0.125), 0) == {"never": "hard", "once": "hard", **easy}
    dropped = prompts_to_drop(measured, 8, CurationConfig(drop_up_to=0.5), 0)
    with pytest.raises(CurationError, match=r"only 0 of the 0 prompts left.*3 hard"):
        check_informative(measured, dropped, 8, prompts_per_step=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drop_up_to": -0.1}, r"curation\.drop_up_to = -0\.1 must lie in \[0, 1\.0\)"),
        ({"drop_up_to": 0.5, "drop_from": 0.5}, r"must lie in \[0, 0\.5\), below curation\.drop_from"),
        ({"drop_up_to": 0.0, "shape": "mirrored_j"}, r"never solved; remove curation\.drop_up_to"),
    ],
)
def test_a_limit_that_leaves_nothing_or_contradicts_the_shape_is_refused(fields, message):
    with pytest.raises(Refused, match=message):
        CurationConfig(**fields)


def test_a_published_mirrored_j_stays_whole():
    assert mirrored_j(QWEN3_4B) == QWEN3_4B
    without_solved = [*R1_7B[:-1], 0]
    assert mirrored_j(without_solved) == without_solved


def test_a_published_j_does_not():
    assert mirrored_j(R1_7B) == [*R1_7B[:-1], 8900]
    flat = [*R1_7B[:5], 6000, 6000, 6000, 0]
    assert mirrored_j(flat) == [*R1_7B[:5], 5491, 5491, 5491, 0], "8900 + 3 x 2525 = 16475 below one half"


@given(SIZES)
def test_mirrored_j_is_the_largest_of_its_kind(sizes):
    shaped = mirrored_j(sizes)
    half, easy = len(sizes) // 2, range(len(sizes) - len(sizes) // 2, len(sizes))
    assert all(new <= old for new, old in zip(shaped, sizes, strict=True))
    assert max(shaped) == shaped[0] == sizes[0]
    assert sum(shaped[k] for k in easy) <= sum(shaped[:half])
    assert mirrored_j(shaped) == shaped
    cut = [k for k in easy if shaped[k] < min(sizes[k], sizes[0])]
    assert len({shaped[k] for k in cut}) <= 1, "what is cut is cut to one level"
    if cut:
        higher = [min(size, sizes[0], shaped[cut[0]] + 1) for size in sizes[easy.start :]]
        assert sum(higher) > sum(shaped[:half]), "one more would be too many"


@given(SIZES, st.data())
def test_the_largest_subset_with_given_shares(sizes, data):
    shares = data.draw(st.lists(st.sampled_from([0, 0.1, 0.25, 1, 3]), min_size=len(sizes), max_size=len(sizes)).filter(any))
    if any(share and not size for share, size in zip(shares, sizes, strict=True)):
        with pytest.raises(CurationError, match=", ".join(map(str, sizes))):
            largest_subset(sizes, shares)
        return
    kept = largest_subset(sizes, shares)
    assert all(new <= old for new, old in zip(kept, sizes, strict=True))
    assert any(share and new == old for new, old, share in zip(kept, sizes, shares, strict=True)), (
        "one bin is used up, so no larger set fits"
    )
    scarce = min((size / share, size, share) for size, share in zip(sizes, shares, strict=True) if share)
    for new, share in zip(kept, shares, strict=True):
        assert abs(new - scarce[1] * share / scarce[2]) < 1 + 1e-9, "within one prompt of its share"


@given(SIZES, st.integers(0, 3), st.randoms())
def test_who_goes_depends_neither_on_order_nor_on_the_other_bins(sizes, seed, shuffle):
    assume(2 * sizes[0] * sum(map(bool, sizes[1:-1])) >= sum(sizes[1:-1]))
    measured, samples = prompts(sizes), len(sizes) - 1
    config = CurationConfig(shape="mirrored_j")
    kept = left(measured, samples, config, seed)
    order = list(measured)
    shuffle.shuffle(order)
    assert left({key: measured[key] for key in order}, samples, config, seed) == kept
    assert histogram((measured[key] for key in kept), samples) == mirrored_j([*sizes[:-1], 0])


def test_a_smaller_target_keeps_a_subset_and_another_seed_another_one():
    measured = prompts([30, 30, 30, 0])
    few, many = (left(measured, 3, CurationConfig(histogram=(share, 1, 1)), seed=4) for share in (0.3, 0.6))
    assert few < many
    assert left(measured, 3, CurationConfig(histogram=(0.3, 1, 1)), seed=5) != few


def test_the_choice_of_a_seed_is_pinned():
    """The three smallest digests of `17/<id>` in each bin; a set that is curated again must stay the same."""
    measured = prompts([4, 6, 3, 0])
    kept = left(measured, 3, CurationConfig(histogram=(1, 1, 1)), seed=17)
    assert kept == {"0-0", "0-1", "0-2", "1-0", "1-3", "1-4", "2-0", "2-1", "2-2"}


def test_a_target_of_shares_is_met():
    measured = prompts([100, 50, 40, 30, 20])
    kept = left(measured, 4, CurationConfig(histogram=(4, 3, 2, 1)))
    assert histogram((measured[key] for key in kept), 4) == [66, 50, 33, 16, 0]


def test_shares_are_the_decimal_numbers_that_were_written():
    assert largest_subset([10, 30, 60], [0.1, 0.3, 0.6]) == [10, 30, 60]


def test_an_impossible_target_says_what_is_there():
    with pytest.raises(CurationError, match=r"histogram\[2\] \(pass rates from 0.667\).*30, 30, 0"):
        prompts_to_drop(prompts([30, 30, 0, 12]), 3, CurationConfig(histogram=(1, 1, 1)), 0)


@pytest.mark.parametrize("samples", [1, 2, 8, 10, 32])
def test_bins_of_whole_outcomes(samples):
    """n + 1 shares name the outcomes 0/n .. n/n, and n shares those that are not always solved."""
    assert [outcome((k, samples), samples) for k in range(samples + 1)] == list(range(samples + 1))
    assert [share_bin((k, samples), samples + 1) for k in range(samples + 1)] == list(range(samples + 1))
    assert [share_bin((k, samples), samples) for k in range(samples)] == list(range(samples))


def test_lost_verdicts_never_turn_sometimes_into_always_or_never():
    for samples in (2, 3, 8):
        for count in range(1, samples + 1):
            assert outcome((0, count), samples) == 0
            assert outcome((count, count), samples) == samples
            assert all(0 < outcome((passed, count), samples) < samples for passed in range(1, count))


def test_too_few_informative_prompts_are_an_error_with_the_numbers():
    measured = prompts([20, 1, 2, 40])
    assert informative(measured.values()) == 3
    check_informative(measured, {}, 3, prompts_per_step=3)
    dropped = prompts_to_drop(measured, 3, CurationConfig(), 0)
    with pytest.raises(CurationError) as error:
        check_informative(measured, dropped, 3, prompts_per_step=4)
    for number in ("only 3 of the 23 prompts", "prompts_per_step = 4", "0/3: 20, 1/3: 1, 2/3: 2, 3/3: 40", "40 easy"):
        assert number in str(error.value)


def test_a_set_that_curation_empties_is_an_error():
    measured = prompts([0, 500, 500, 500])
    dropped = prompts_to_drop(measured, 3, CurationConfig(drop_from=0.3), 0)
    with pytest.raises(CurationError, match=r"only 0 of the 0 prompts left.*so 1000 solved sometimes.*1500 easy"):
        check_informative(measured, dropped, 3, prompts_per_step=8)


def test_a_mirrored_j_without_a_tall_stroke_is_an_error_not_a_small_set():
    with pytest.raises(CurationError, match=r"never solved, and finds 40 of 7040 \(prompts per bin: 40, 1000, .*remove curation\.shape"):
        prompts_to_drop(prompts([40, *[1000] * 7, 300]), 8, CurationConfig(shape="mirrored_j"), 0)
    assert prompts_to_drop(prompts([500, *[1000] * 7, 0]), 8, CurationConfig(shape="mirrored_j"), 0)


def test_53_thousand_prompts_take_no_time():
    rng = random.Random(0)
    measured = {str(i): (rng.randrange(9), 8) for i in range(53_291)}
    dropped = prompts_to_drop(measured, 8, CurationConfig(shape="mirrored_j"), 0)
    assert 0 < len(dropped) < len(measured)


@pytest.mark.parametrize(
    "config", [CurationConfig(drop_from=f, drop_up_to=u) for f in (1.0, 0.9, 0.5) for u in (None, 0.0, 0.3) if u is None or u < f]
)
@pytest.mark.parametrize("samples", [5, 8])
def test_a_settled_prompt_is_one_whose_fate_no_outcome_of_the_rest_can_change(config, samples):
    def fate(passed, count):
        return prompts_to_drop({"x": (passed, count)}, samples, config, 0)

    for count in range(1, samples):
        left = samples - count
        for passed in range(count + 1):
            ends = [fate(passed + more, count + kept) for kept in range(left + 1) for more in range(kept + 1)]
            assert settled((passed, count), left, config) == all(end == ends[0] for end in ends)
    assert not settled((0, 0), 1, config)
    assert settled((0, 0), 0, config)


def test_of_a_pass_that_stopped_early_the_unsolved_may_be_solved_sometimes():
    measured = {"a": (0, 4), "b": (1, 4), "c": (0, 8)}
    check_informative(measured, {}, 8, 2, stopped_early=True)
    for step, early in ((2, False), (3, True)):
        with pytest.raises(CurationError, match="only 1 of the 3 prompts left"):
            check_informative(measured, {}, 8, step, stopped_early=early)
