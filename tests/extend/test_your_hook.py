"""The hook of docs/extend.md in a real run."""

import pytest
from recipes import records, train, write_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_the_hook_hears_of_everything_and_adds_its_metrics(tmp_path):
    pytest.importorskip("vllm")
    run = train(write_recipe("A hook", tmp_path))
    assert run.returncode == 0, run.stdout
    found = records(tmp_path)
    steps = [record for record in found if "reward/mean" in record]
    assert [record["step"] for record in steps] == [1, 2, 3]
    assert all(2 < record["hook/sums_per_response"] < 12 for record in steps)
    best = [(record["eval/accuracy"], record["hook/best_accuracy"]) for record in found if "eval/accuracy" in record]
    assert [kept for _, kept in best] == [max(accuracy for accuracy, _ in best[: index + 1]) for index in range(2)]
    assert (tmp_path / "runs/hook/notes.txt").read_text().splitlines() == ["step 2 is in step-000002", "step 3 is in step-000003", "done"]
    assert "hook/sums_per_response" in _tags(tmp_path / "runs/hook/tensorboard")


def _tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload().Tags()["scalars"]
