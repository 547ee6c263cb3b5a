"""Two ranks, of which one is told to stop twice, train as one rank does that nobody stops."""

import json
from pathlib import Path

import pytest
from programs import run_ranks
from train_ranks import SHIFT, STEPS, check_run, train

from polaris.embedded import resolve
from polaris.observe.metrics import deterministic, read_records
from polaris.stop import StopRequest

pytestmark = pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
SCRIPT = Path(__file__).with_name("train_ranks.py")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Some the model nearly always solves, some it seldom does."""
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = [[row for row in rows if row["difficulty"] == difficulty][place] for difficulty in (3, 4, 5, 6) for place in (0, 1)]
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return path


@pytest.mark.distributed
@pytest.mark.slow
def test_records_of_two_ranks_with_stops_are_those_of_one_without(world, problems, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(check_run(one, problems), world, StopRequest()) == [STEPS]
    run_ranks(2, SCRIPT, two, problems)
    expected, found = ([deterministic(r) for r in read_records(root / "run" / "metrics.jsonl")] for root in (one, two))
    steps = [record for record in expected if "reward/mean" in record]
    assert [record["step"] for record in expected if "eval/accuracy" in record] == [0, 2, 4]
    assert len(steps) == STEPS
    assert steps[0]["groups/informative"] > 1, "there is something to learn on either rank"
    unknown = [record["curriculum/unknown"] for record in steps]
    assert unknown == sorted(unknown, reverse=True), "pass rates of one step choose the prompts of the next"
    assert unknown[0] == 1 > unknown[1] > unknown[-1] == 0
    assert all(record["reward/process_mean"] > 0 for record in steps)
    assert all(record["policy/version"] == record["step"] for record in steps)
    for record in steps:
        assert record["sync/logprob_gap"] == pytest.approx(SHIFT, abs=0.2 * SHIFT)
    assert [record.keys() for record in found] == [record.keys() for record in expected]
    for theirs, ours in zip(found, expected, strict=True):
        # The largest gap of a log-prob is rounding alone: ten to twenty units in the last place of a logit of 8 to 16.
        rounding = "mismatch/logprob_gap_max"
        assert theirs.get(rounding) == pytest.approx(ours.get(rounding), abs=2e-5)
        theirs, ours = ({key: value for key, value in record.items() if key != rounding} for record in (theirs, ours))
        assert theirs == pytest.approx(ours, rel=1e-4, abs=3e-6)
