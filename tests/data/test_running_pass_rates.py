"""The running pass rate: what was passed over what was graded, whatever the order, and the same after a checkpoint."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polaris.data.pass_rates import PassRates

GROUPS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.booleans(), max_size=8)), max_size=20)


def fill(ledger, groups):
    for prompt_id, verdicts in groups:
        ledger.add(prompt_id, sum(verdicts), len(verdicts))
    return ledger


@given(GROUPS, st.randoms())
def test_the_rate_is_the_mean_of_all_verdicts_in_any_order(groups, random):
    ledger = fill(PassRates(), groups)
    for prompt_id in "abc":
        verdicts = [verdict for name, group in groups if name == prompt_id for verdict in group]
        assert ledger.rate(prompt_id) == (sum(verdicts) / len(verdicts) if verdicts else None)
    shuffled = random.sample(groups, len(groups))
    assert fill(PassRates(), shuffled).counts == ledger.counts


def test_the_offline_value_is_the_first_term_and_not_forgotten():
    ledger = PassRates()
    ledger.add("a", 1, 8)
    ledger.add_offline("a", 2, 8)
    assert ledger.rate("a") == 0.25
    ledger.add("a", 8, 8)
    assert ledger.rate("a") == 10 / 16
    assert ledger.counts == {"a": (10, 16)}


def test_counts_that_cannot_be_are_refused():
    for add in (PassRates().add, PassRates().add_offline):
        with pytest.raises(AssertionError):
            add("a", 3, 2)


@settings(deadline=None, max_examples=25)
@given(GROUPS)
def test_a_saved_ledger_comes_back_and_others_can_read_it(tmp_path_factory, groups):
    folder = tmp_path_factory.mktemp("checkpoint")
    ledger = fill(PassRates(), groups)
    ledger.save(folder)
    rows = pq.read_table(folder / "ledger.parquet").to_pylist()
    assert {row["id"]: (row["passed"], row["graded"]) for row in rows} == ledger.counts
    other = fill(PassRates(), [("gone", [True])])
    other.load(folder)
    assert other.counts == ledger.counts


def test_a_restored_ledger_is_a_copy():
    first, second = fill(PassRates(), [("a", [True, False])]), fill(PassRates(), [("b", [True])])
    second.restore(first)
    second.add("a", 1, 1)
    assert second.counts == {"a": (2, 3)}
    assert first.counts == {"a": (1, 2)}
