"""The quickstart's own settings, for as many steps as show that they teach the embedded model something."""

import programs
import pytest

from polaris.config.load import QUICKSTART
from polaris.observe.metrics import read_records


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twelve_steps_of_the_quickstart_raise_held_out_accuracy(tmp_path):
    options = [f"--root={tmp_path}", "--rollout.engine=transformers", "--trainer.cpu_threads=1", "--trainer.steps=12", "--eval.every=12"]
    programs.run("-m", "polaris.train", QUICKSTART, *options, check=True)
    before, after = [one["eval/accuracy"] for one in read_records(tmp_path / "quickstart" / "metrics.jsonl") if "eval/accuracy" in one]
    assert 0.3 < before < 0.5
    assert after > before + 0.03
