"""The reward of docs/extend.md, in a run of its own on vLLM."""

import pytest
from recipes import records, train, write_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_column_and_an_option_reach_it_and_its_weight_is_added(tmp_path):
    pytest.importorskip("vllm")
    result = train(write_recipe("A reward", tmp_path))
    assert result.returncode == 0, result.stdout[-3000:]
    steps = [record for record in records(tmp_path) if "reward/mean" in record]
    assert len(steps) == 3
    for record in steps:
        brief = record["reward/mine:brief/mean"]
        assert 0 < brief < 0.5, "most is an option"
        assert brief <= 0.5 * (1 - record["response/length_mean"] / 64) + 1e-9
        assert record["reward/math/mean"] == record["reward/accuracy"]
        assert record["reward/mean"] == pytest.approx(record["reward/math/mean"] + 0.2 * brief + 0.1 * record["reward/format/mean"])
        assert record["reward/raised"] == record["reward/killed"] == 0
    assert any(record["reward/format/mean"] > 0 for record in steps)
