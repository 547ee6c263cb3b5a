"""A run may be extended; what its steps were computed with may not change."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from polaris.checkpoint.layout import COMMIT, step_folder
from polaris.checkpoint.run_folder import RunFolder, open_run, record_config
from polaris.config.recipe import StageConfig
from polaris.config.schema import DistributedConfig, RewardConfig, RunConfig, SyncConfig
from polaris.observe.metrics import MetricsFile
from polaris.recipe.results import write_result

FIRST, SECOND = StageConfig(steps=3), StageConfig(steps=2, temperature=0.7)


@pytest.fixture
def recorded(tmp_path):
    """A function of the stages of a run on disk, and how many of them are closed."""

    def record(stages, closed, step=1):
        config = RunConfig(root=str(tmp_path), name="run", stage=stages)
        record_config(RunFolder(tmp_path / "run"), config)
        for number in range(1, closed + 1):
            write_result(tmp_path / "run" / "stages" / f"stage-{number}.json", {})
        checkpoint = step_folder(tmp_path / "run" / "checkpoints", step)
        checkpoint.mkdir(parents=True)
        (checkpoint / COMMIT).write_text('{"files": {}}')
        MetricsFile(tmp_path / "run" / "metrics.jsonl").append({"step": step})
        return config

    return record


HOTTER = replace(SECOND, temperature=0.9)


@pytest.mark.parametrize(
    ("closed", "step", "stages", "refused"),
    [
        (2, 5, (FIRST, SECOND, HOTTER), ""),
        (0, 2, (FIRST, SECOND, HOTTER), ""),
        (0, 2, (FIRST, HOTTER), ""),
        (0, 2, (FIRST,), ""),
        (1, 3, (FIRST, HOTTER), ""),
        (1, 3, (FIRST,), ""),
        (1, 4, (FIRST, HOTTER), "stage.1.temperature: 0.7 -> 0.9"),
        (1, 4, (FIRST,), "stage.1"),
        (2, 5, (FIRST, HOTTER, SECOND), "stage.1.temperature"),
        (0, 2, (HOTTER, SECOND), "stage.0.temperature"),
        (0, 2, (), "stage"),
    ],
)
def test_only_stages_that_have_not_begun_may_change(recorded, closed, step, stages, refused):
    config = replace(recorded((FIRST, SECOND), closed, step), stage=stages)
    if refused:
        with pytest.raises(ValueError, match=refused):
            open_run(config, fresh=False, main=True)
    else:
        open_run(config, fresh=False, main=True)


def test_stages_cannot_take_the_place_of_a_run_without_them(recorded):
    config = replace(recorded((), 1), stage=(FIRST,))
    with pytest.raises(ValueError, match=r"started without \[\[stage\]\] tables; extend it with trainer.steps"):
        open_run(config, fresh=False, main=True)


def test_before_the_first_record_everything_may_change(recorded, tmp_path):
    config = replace(recorded((FIRST, SECOND), 0), stage=(HOTTER,), seed=7)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"")
    open_run(config, fresh=False, main=True)


def test_the_probe_may_change_between_two_stages_only(recorded):
    config = recorded((FIRST, SECOND), 1, step=3)
    changed = replace(config, probe=replace(config.probe, prompts=7))
    open_run(changed, fresh=False, main=True)


def test_the_probe_may_not_change_within_a_stage(recorded):
    config = recorded((FIRST, SECOND), 1, step=4)
    with pytest.raises(ValueError, match=r"probe\.prompts"):
        open_run(replace(config, probe=replace(config.probe, prompts=7)), fresh=False, main=True)


def test_fresh_sets_results_of_a_phase_alone_aside_too_and_says_where(tmp_path, capsys):
    config = RunConfig(root=str(tmp_path), name="run")
    write_result(tmp_path / "run" / "stages" / "difficulty.json", {})
    open_run(config, fresh=True, main=True)
    assert not (tmp_path / "run" / "stages").exists()
    (moved,) = tmp_path.glob("run-before-*/stages/*")
    assert moved.name == "difficulty.json"
    assert capsys.readouterr().out == f"--fresh: the run that was in {tmp_path / 'run'} is now {moved.parents[1]}\n"


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_record_names_itself(recorded, tmp_path, text):
    config = recorded((FIRST, SECOND), 1)
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"run/config.json is damaged"):
        open_run(config, fresh=False, main=True)


def test_what_an_error_names_as_its_remedy_may_change_at_a_resume(recorded):
    """Raising a tolerance or a time limit must not set the run aside."""
    config = recorded((FIRST, SECOND), 1, step=4)
    limits = DistributedConfig(update_timeout_minutes=90.0)
    open_run(replace(config, sync=SyncConfig(gap_factor=6.0, base_tolerance=0.4), distributed=limits), fresh=False, main=True)


@pytest.mark.parametrize(
    ("before", "now", "refused"), [(True, "auto", False), (False, "auto", False), (True, False, True), (False, True, True)]
)
def test_auto_goes_on_as_the_run_was_graded(recorded, before, now, refused):
    """A run records what "auto" came to, or the bool that it was started with before there was "auto"."""
    config = recorded((FIRST,), 0)
    record_config(RunFolder(Path(config.root) / config.name), replace(config, reward=RewardConfig(require_thinking=before)))
    config = replace(config, reward=RewardConfig(require_thinking=now))
    if refused:
        with pytest.raises(ValueError, match=f"reward.require_thinking: {before} -> {now}"):
            open_run(config, fresh=False, main=True)
    else:
        open_run(config, fresh=False, main=True)
