"""Which weights a run begins with that another one has left; folders only, whole runs are in tests/run/test_resumed_runs.py."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from polaris.checkpoint.branch import Start, _checkpointed, begin, parse, served
from polaris.checkpoint.changes import Changes
from polaris.checkpoint.layout import COMMIT, step_folder
from polaris.checkpoint.run_folder import Origin, RunFolder, open_run, record_config
from polaris.checkpoint.runs import meant_as_run
from polaris.config.model import ModelConfig
from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.observe.metrics import MetricsFile


@pytest.fixture
def source(tmp_path):
    """A run with exports of steps 2 and 4 and checkpoints of steps 3 and 4."""
    run = tmp_path / "x"
    record_config(RunFolder(run), RunConfig(root=str(tmp_path), name="x"))
    for step in (2, 4):
        export_of(run, step).mkdir(parents=True)
        (export_of(run, step) / "config.json").write_text("{}")
    for step in (3, 4):
        checkpoint_of(run, step)
    return run


def export_of(run, step):
    return run / "export" / f"step-{step:06d}"


def checkpoint_of(run, step):
    folder = step_folder(run / "checkpoints", step)
    folder.mkdir(parents=True)
    (folder / COMMIT).write_text('{"files": {}}')


def named(source, name="y", model="base"):
    return RunConfig(root=str(source.parent), name=name, model=ModelConfig(path=str(model)))


def begun(source, origin, model):
    """A run y that began with `origin` and has trained a step."""
    config = named(source, model=model)
    record_config(RunFolder(source.parent / "y"), config, {}, origin)
    MetricsFile(source.parent / "y" / "metrics.jsonl").append({"step": 1})
    return config


def test_names_of_runs_and_steps(tmp_path):
    assert [parse("runs/x@step-40")[1], parse("runs/x@step-000040")[1], parse("runs/x")[1], parse("hub/model@main")[1]] == [
        40,
        40,
        None,
        None,
    ]


@pytest.mark.parametrize(("given", "step"), [("", 4), ("@step-2", 2), ("@step-4", 4)])
def test_a_run_as_model_path_is_its_newest_or_named_export(source, given, step):
    config, origin = begin(named(source, model=f"{source}{given}"), Start())
    assert config.model.path == str(export_of(source, step))
    assert origin == Origin(run=str(source), step=step, part="export")


def test_an_evaluation_takes_a_run_for_its_export(source):
    assert served(str(source)) == str(export_of(source, 4))
    assert served(f"{source}@step-2") == str(export_of(source, 2))
    assert served("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"


def test_other_model_paths_stay(source):
    for path in ("Qwen/Qwen3-4B", "embedded:model", str(export_of(source, 2))):
        assert begin(named(source, model=path), Start()) == (named(source, model=path), None)


@pytest.mark.parametrize(("flags", "part"), [({}, "weights"), ({"with_optimizer": True}, "weights and optimizer")])
def test_from_takes_a_checkpoint(source, flags, part):
    config, origin = begin(named(source), Start(source=str(source), **flags))
    assert (config.model.path, origin) == (str(export_of(source, 4)), Origin(run=str(source), step=4, part=part))


@pytest.mark.parametrize(
    ("start", "model", "name", "message"),
    [
        (Start(source="{x}@step-2"), "base", "y", r"complete checkpoints of steps \[3, 4\] .*--model\.path=.*x@step-N"),
        (Start(source="{x}@step-9"), "base", "y", r"complete checkpoints of steps \[3, 4\]"),
        (Start(source="{x}@9"), "base", "y", r"x@9: a step of .*x is written as .*x@step-9"),
        (Start(), "{x}@latest", "y", r"is written as .*x@step-40"),
        (Start(), "{x}/checkpoints/step-000003", "y", r"is written as .*x@step-3"),
        (Start(source="{x}/export"), "base", "y", "is not a run folder; give one such as runs/my-run"),
        (Start(source="{x}"), "base", "x", "is this run itself.* give another --name"),
        (Start(fresh=True), "{x}", "x", "is this run itself"),
        (Start(with_optimizer=True), "base", "y", "name it with --from RUN"),
        (Start(), "{x}@step-9", "y", r"exports and complete checkpoints of steps \[2, 3, 4\] only"),
    ],
)
def test_what_cannot_be_is_said(source, start, model, name, message):
    start = replace(start, source=start.source.format(x=source))
    with pytest.raises(Refused, match=message):
        begin(named(source, name, model.format(x=source)), start)


@pytest.mark.parametrize("model", ["{root}/z", "{root}/z@step-4", "elsewhere/z@step-4"])
def test_a_run_that_is_not_there_is_named_with_those_that_are(source, model):
    given = model.format(root=source.parent)
    there = f"there is {source}" if "{root}" in model else "give one such as runs/my-run"
    for ask in (lambda: begin(named(source, model=given), Start()), lambda: served(given)):
        with pytest.raises(Refused, match=rf"model\.path = .*z: there is no such run or folder; {there}"):
            ask()
    with pytest.raises(Refused, match=rf"--from .*z does not exist; {there}"):
        begin(named(source), Start(source=str(source.parent / "z"))) if "{root}" in model else begin(named(source), Start(source=given))


def test_a_run_without_a_checkpoint_yet_is_a_run(source):
    begun(source, None, "base")
    with pytest.raises(Refused, match="y has neither an export nor a complete checkpoint; train it first"):
        begin(named(source, "z", source.parent / "y"), Start())


def test_a_folder_of_runs_that_is_not_there_is_told_from_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="no such run or folder; give one such as runs/my-run"):
        served("runs/x")
    assert served("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"


def test_a_run_goes_on_with_what_it_began_with_though_the_source_is_trained_further(source):
    began = Origin(run=str(source), step=2, part="export")
    begun(source, began, export_of(source, 2))
    config, origin = begin(named(source, model=source), Start())
    assert (config.model.path, origin) == (str(export_of(source, 2)), began)
    assert begin(named(source, model=source), Start(fresh=True))[1].step == 4


@pytest.mark.parametrize("given", ["", "{x}", "{x}@step-3"])
def test_a_branch_goes_on_by_the_same_command_and_without_its_checkpoint(source, given):
    export_of(source, 3).mkdir()
    (export_of(source, 3) / "config.json").write_text("{}")
    began = Origin(run=str(source), step=3, part="weights")
    begun(source, began, export_of(source, 3))
    shutil.rmtree(step_folder(source / "checkpoints", 3))
    config, origin = begin(named(source), Start(source=given.format(x=source)))
    assert (config.model.path, origin) == (str(export_of(source, 3)), began)


def test_a_run_that_began_otherwise_is_not_taken_for_a_branch(source):
    begun(source, None, "base")
    with pytest.raises(Refused, match=r"y exists and began with model\.path, not with .*x \(weights\); give another --name"):
        begin(named(source), Start(source=str(source)))
    begun(source, Origin(run=str(source), step=4, part="weights"), export_of(source, 4))
    with pytest.raises(Refused, match=r"began with .*x, step 4 \(weights\), not with .*x \(weights and optimizer\)"):
        begin(named(source), Start(source=str(source), with_optimizer=True))


def test_a_run_that_began_with_the_export_of_another_says_so(source):
    begun(source, Origin(run=str(source.with_name("w")), step=7, part="export"), "base")
    with pytest.raises(Refused, match=r"y exists and began with .*w, step 7 \(export\), not with .*x \(export\); give another --name"):
        begin(named(source, model=source), Start())


def test_fresh_begins_a_branch_in_the_place_of_another_run(source):
    begun(source, None, "base")
    assert begin(named(source), Start(source=str(source), fresh=True))[1].step == 4


def test_a_source_that_has_moved_is_named_anew(source):
    begun(source, Origin(run=str(source), step=4, part="weights"), export_of(source, 4))
    moved = source.rename(source.with_name("z"))
    with pytest.raises(Refused, match=r"whose export .*x/export/step-000004 is gone; name its new place with --from"):
        begin(named(source), Start())
    config, origin = begin(named(source), Start(source=f"{moved}@step-4"))
    assert (config.model.path, origin.run) == (str(export_of(moved, 4)), str(moved))


def test_what_a_run_began_with_is_kept_where_the_weights_are_named_by_their_folder(source):
    began = Origin(run=str(source), step=4, part="export")
    config = begun(source, began, export_of(source, 4))
    assert begin(config, Start()) == (config, began)
    assert begin(config, Start(fresh=True)) == (config, None)


def test_a_folder_that_only_looks_like_an_export_is_none(source):
    export_of(source, 4).rename(source / "export" / "step-4-old")
    assert served(f"{source}@step-2") == str(export_of(source, 2))


def test_a_run_without_a_checkpoint_and_a_new_one_without_changes(tmp_path):
    with pytest.raises(ValueError, match=r"it has no complete checkpoint \(checkpoints/step-N with COMMIT\.json\); train it first"):
        _checkpointed(tmp_path, None)
    assert open_run(RunConfig(root=str(tmp_path), name="new"), fresh=False, main=True).changes == Changes()


@pytest.mark.parametrize("mark", ["metrics.jsonl", "export", "checkpoints", "stages"])
def test_a_model_beside_something_that_is_named_as_in_a_run_is_none(tmp_path, mark):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / mark).mkdir()
    assert served(str(tmp_path)) == str(tmp_path)


def test_a_name_without_a_folder_is_no_run_although_runs_lie_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    (tmp_path / "other" / "config.json").write_text("{}")
    assert not meant_as_run(Path("embedded:model"), Path("runs"))
    assert meant_as_run(Path("runs/x"), Path("runs"))
