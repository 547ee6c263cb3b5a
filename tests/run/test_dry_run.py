"""`--dry-run` refuses what a start would: a plan that does not fit the GPUs that are there, and a change of a run that has begun."""

from dataclasses import replace
from pathlib import Path

import pytest

from polaris import train
from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.config.load import load_config
from polaris.plan.cards import card_named
from polaris.run import dry_plan

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
pytestmark = pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model


def dry(tmp_path, *overrides):
    return train.main([str(CONFIG), "--dry-run", f"--root={tmp_path}", "--rollout.engine=transformers", *overrides])


@pytest.mark.parametrize("there", [True, False], ids=["there", "assumed"])
def test_a_plan_that_does_not_fit_is_refused_where_the_gpus_are(there, tmp_path, capsys, monkeypatch):
    small = replace(card_named("H100"), gib=2.0)
    monkeypatch.setattr(dry_plan, "machine_of", lambda: (small, 1))
    monkeypatch.setattr(dry_plan, "gpus_here", lambda: int(there))
    assert dry(tmp_path) == (2 if there else 0)
    said = capsys.readouterr()
    assert "does not fit: on each GPU, an update" in said.out
    assert ("nothing was trained" in said.out) is not there
    assert said.err.startswith("polaris: on each GPU, an update" if there else "")
    assert "all checks passed;" not in said.out


def test_a_run_that_a_start_would_not_resume_is_refused_and_left_alone(tmp_path, capsys):
    config = load_config(CONFIG, [f"--root={tmp_path}", "--rollout.engine=transformers"])
    folder = RunFolder(config.folder)
    folder.path.mkdir()
    record_config(folder, config)
    folder.metrics.write_text('{"step": 1}\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert dry(tmp_path, "--optimizer.lr=2e-4") == 2
    assert "optimizer.lr: 0.0001 -> 0.0002" in capsys.readouterr().err
    assert [dry(tmp_path, *more) for more in ((), ("--optimizer.lr=2e-4", "--change"), ("--optimizer.lr=2e-4", "--fresh"))] == [0, 0, 0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
