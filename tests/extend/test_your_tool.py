"""The calculator of docs/extend.md in a real run: responses of several turns, of which only what the policy wrote is trained on."""

import pytest
from recipes import records, train, write_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_the_calculator_is_read_and_not_trained_on(tmp_path):
    pytest.importorskip("vllm")
    run = train(write_recipe("A tool, and several turns", tmp_path))
    assert run.returncode == 0, run.stdout
    found = records(tmp_path)
    assert [record["step"] for record in found] == [1, 2, 3]
    assert all(1 < record["episode/turns_mean"] < 2 for record in found)
    assert all(record["episode/turns_max"] in (2, 3) for record in found)
    assert all(0 < record["episode/read_share"] < 0.3 for record in found)
    for record in found:
        drawn = record["response/length_mean"] * 32
        assert record["rollout/tokens"] == pytest.approx(drawn * (1 - record["episode/read_share"]))
    # Engine and trainer agree on every token that was trained on, those of later turns too. A calculator's, at log-prob 0, would not.
    assert found[-1]["policy/version"] == 3
    assert all(record["mismatch/logprob_gap_max"] < 1e-3 for record in found)
