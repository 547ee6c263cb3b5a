"""The loss of docs/extend.md in a real run."""

import pytest
from recipes import records, train, write_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_the_loss_trains_and_counts_the_tokens_that_it_leaves_out(tmp_path):
    pytest.importorskip("vllm")
    run = train(write_recipe("A loss, and an advantage", tmp_path))
    assert run.returncode == 0, run.stdout
    found = records(tmp_path)
    assert [record["step"] for record in found] == [1, 2, 3]
    assert found[-1]["policy/version"] > 0
    trained = [record for record in found if "policy/clip_high" in record]
    assert trained
    for record in trained:  # a built-in loss clips nothing in a step's first update
        assert 0.05 < record["policy/clip_high"] < 1
        assert record["policy/ratio_max"] == 1
