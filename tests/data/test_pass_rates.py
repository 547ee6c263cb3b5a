import pytest

from polaris.config.recipe import DifficultyConfig
from polaris.data.pass_rates import read_pass_rate

CONFIG = DifficultyConfig(samples_per_prompt=8, column="difficulty")


@pytest.mark.parametrize(
    ("value", "passes"),
    [("5/8", (5, 8)), (" 0 / 16 ", (0, 16)), (0.625, (5, 8)), (1, (8, 8)), (0.0, (0, 8)), (0.12, (1, 8)), (0.13, (1, 8))],
)
def test_counts_and_shares(value, passes):
    assert read_pass_rate({"difficulty": value}, "set.jsonl:0", CONFIG) == passes


@pytest.mark.parametrize("value", ["9/8", "0/0", "hard", "-1/8", 0.3, None, 1.5, -0.1, True, float("nan"), [5, 8]])
def test_anything_else_is_refused_with_row_and_remedy(value):
    with pytest.raises(ValueError, match=r"set\.jsonl:7 has .* in 'difficulty', not a pass rate; .* such as 5/8"):
        read_pass_rate({"difficulty": value}, "set.jsonl:7", CONFIG)


def test_a_missing_column_is_refused_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"set\.jsonl:0 has no column difficulty\.column = 'difficulty'; there is problem, rate"):
        read_pass_rate({"problem": "1+1", "rate": "5/8"}, "set.jsonl:0", CONFIG)


def test_a_column_within_a_column_is_read():
    config = DifficultyConfig(samples_per_prompt=8, column="meta.rate")
    assert read_pass_rate({"meta": {"rate": "3/8"}}, "set.jsonl:0", config) == (3, 8)
    with pytest.raises(ValueError, match=r"has no column difficulty\.column = 'meta.rate'; there is meta\.other"):
        read_pass_rate({"meta": {"other": 1}}, "set.jsonl:0", config)


def test_a_share_needs_the_number_of_responses_behind_it():
    with pytest.raises(ValueError, match=r"set difficulty\.samples_per_prompt"):
        DifficultyConfig(column="difficulty")
