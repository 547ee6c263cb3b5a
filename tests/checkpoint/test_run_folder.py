"""A run may be extended; what its steps were computed with may not change."""

from dataclasses import replace

import pytest

from polaris.checkpoint.run_folder import RunFolder, open_run, record_config
from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig
from polaris.observe.metrics import MetricsFile
from polaris.recipe.results import write_result

FIRST, SECOND = StageConfig(steps=3), StageConfig(steps=2, temperature=0.7)


@pytest.fixture
def recorded(tmp_path):
    """A function of the stages of a run on disk, and how many of them are closed."""

    def record(stages, closed):
        config = RunConfig(root=str(tmp_path), name="run", stage=stages)
        record_config(RunFolder(tmp_path / "run"), config)
        for number in range(1, closed + 1):
            write_result(tmp_path / "run" / "stages" / f"stage-{number}.json", {})
        MetricsFile(tmp_path / "run" / "metrics.jsonl").append({"step": 1})
        return config

    return record


HOTTER = replace(SECOND, temperature=0.9)


@pytest.mark.parametrize(
    ("closed", "stages", "refused"),
    [
        (2, (FIRST, SECOND, HOTTER), ""),
        (0, (FIRST, SECOND, HOTTER), ""),
        (0, (FIRST, HOTTER), ""),
        (0, (FIRST,), ""),
        (1, (FIRST, HOTTER), "stage.1.temperature: 0.7 -> 0.9"),
        (1, (FIRST,), "stage.1"),
        (2, (FIRST, HOTTER, SECOND), "stage.1.temperature"),
        (0, (HOTTER, SECOND), "stage.0.temperature"),
        (0, (), "stage"),
    ],
)
def test_only_stages_that_have_not_begun_may_change(recorded, closed, stages, refused):
    config = replace(recorded((FIRST, SECOND), closed), stage=stages)
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
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"")
    open_run(config, fresh=False, main=True)
