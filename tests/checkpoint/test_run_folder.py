"""What a resumed run may change freely, with --change, and never."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from polaris.checkpoint import run_folder
from polaris.checkpoint.changes import Changes, RunProgress, find_changes
from polaris.checkpoint.layout import COMMIT, step_folder
from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.config.data import DataConfig, SetConfig
from polaris.config.model import RopeConfig
from polaris.config.recipe import CurationConfig, DifficultyConfig, StageConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import SyncConfig
from polaris.config.schema import RunConfig
from polaris.config.training import DistributedConfig, OptimizerConfig
from polaris.errors import Refused
from polaris.observe.metrics import MetricsFile
from polaris.results import Result

FIRST, SECOND = StageConfig(steps=3), StageConfig(steps=2, temperature=0.7)


def open_run(config, **options):
    """As a new process would: what this one holds is given back first."""
    run_folder._HELD.clear()
    return run_folder.open_run(config, **{"fresh": False, "main": True} | options)


@pytest.fixture
def recorded(tmp_path):
    """A function of the stages of a run on disk, and how many of them are closed."""

    def record(stages, closed, step=1):
        config = RunConfig(root=str(tmp_path), name="run", stage=stages)
        record_config(RunFolder(tmp_path / "run"), config)
        for number in range(1, closed + 1):
            Result(tmp_path / "run" / "stages" / f"stage-{number}.json").write({})
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
        (0, 2, (replace(FIRST, steps=7, drop_above=0.5), SECOND), ""),
        (0, 2, (replace(FIRST, steps=1), SECOND), "stage.0.steps makes 1 the last step, but step 2 is trained"),
        (1, 4, (FIRST, replace(SECOND, steps=9)), ""),
        (1, 4, (replace(FIRST, steps=2), SECOND), r"stage.0.steps: 3 -> 2 \(that stage is trained\)"),
    ],
)
def test_only_stages_that_have_not_begun_may_change(recorded, closed, step, stages, refused):
    config = replace(recorded((FIRST, SECOND), closed, step), stage=stages)
    if refused:
        with pytest.raises(ValueError, match=refused):
            open_run(config)
    else:
        open_run(config)


FREE = {
    "trainer": {"steps": 9, "tokens_per_pack": 64, "cpu_threads": 1, "max_nonfinite_steps": 9},
    "model": {"path": "elsewhere", "revision": "main", "fused_modules": False, "compile": True},
    "memory": {"activations": "offload", "optimizer": "host"},
    "data": {"path": "elsewhere.jsonl", "split": "other", "max_prompt_tokens": 7},
    "eval": {"path": "elsewhere.jsonl", "split": "other", "every": 3},
    "rollout": {"max_concurrent": 3, "kv_cache_mib": 9, "gpu_memory_fraction": 0.5, "tensor_parallel": 2},
    "reward": {"workers": 3},
    "checkpoint": {"every": 3, "keep": 5},
    "observe": {"tensorboard": False},
    "final": {"samples_per_prompt": 3},
}
ALTERING = {
    "optimizer": {"lr": 3e-4, "weight_decay": 0.5, "beta2": 0.9, "grad_clip": 0.5},
    "trainer": {"prompts_per_step": 8, "updates_per_step": 2},
    "algorithm": {"loss": "grpo", "rescue": 2, "clip_low": 0.1},
    "rollout": {"samples_per_prompt": 16, "temperature": 0.7, "max_response_tokens": 99},
    "reward": {"timeout_s": 9.0},
    "model": {"dtype": "float32"},
    "rope": {"factor": 2.0},
    "eval": {"samples_per_prompt": 3},
    "probe": {"prompts": 7},
}


def cases(changes):
    return [
        pytest.param(section, {name: value}, id=f"{section}.{name}")
        for section, fields in changes.items()
        for name, value in fields.items()
    ]


def with_fields(config, section, fields):
    return replace(config, **{section: replace(getattr(config, section), **fields)})


@pytest.mark.parametrize(("section", "fields"), cases(FREE))
def test_what_alters_no_result_is_free_and_recorded(recorded, section, fields):
    config = with_fields(recorded((), 0), section, fields)
    folder = open_run(config)
    record_config(folder, config, step=1)
    (entry,) = folder.record().history
    ((name, value),) = fields.items()
    assert (entry["step"], entry["changes"]) == (1, [])
    assert len(entry["free"]) == 1
    assert entry["free"][0].startswith(f"{section}.{name}: ")
    assert entry["free"][0].endswith(f" -> {value!r}")
    assert open_run(config).changes == Changes(), "it is said once"


@pytest.mark.parametrize(("section", "fields"), cases(ALTERING))
def test_what_alters_results_needs_change_and_is_recorded(recorded, section, fields):
    old = recorded((), 0)
    config = with_fields(old, section, fields)
    ((name, value),) = fields.items()
    change = f"{section}.{name}: {getattr(getattr(old, section), name)!r} -> {value!r}"
    with pytest.raises(Refused, match=r"alters the results of later steps; add --change") as error:
        open_run(config)
    assert change in str(error.value)
    folder = open_run(config, change=True)
    record_config(folder, config, step=1)
    assert [(entry["changes"], entry["free"]) for entry in folder.record().history] == [([change], [])]
    back = open_run(old, change=True)
    record_config(back, old, step=1)
    assert len(back.record().history) == 2


def test_other_weights_of_sets_make_another_epoch_and_everything_else_of_them_is_compared_by_content(recorded, tmp_path):
    sets = (SetConfig(path="a", weight=1.0), SetConfig(path="b", weight=1.0))
    config = replace(recorded((), 0), data=DataConfig(sets=sets))
    record_config(open_run(config, change=True), config, step=1)
    moved = replace(config, data=DataConfig(sets=(replace(sets[0], path="c", columns={"prompt": "q"}), sets[1]), system_prompt="s"))
    assert open_run(moved).changes.altering == ()
    heavier = replace(config, data=DataConfig(sets=(sets[0], replace(sets[1], weight=2.0))))
    with pytest.raises(Refused, match=r"data\.sets\.1\.weight: 1\.0 -> 2\.0.*alters the results of later steps; add --change"):
        open_run(heavier)


def test_a_moved_or_copied_run_goes_on(recorded, tmp_path):
    config = recorded((FIRST, SECOND), 1, step=4)
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "copy")
    (tmp_path / "run").rename(tmp_path / "renamed")
    open_run(replace(config, name="renamed"))
    open_run(replace(config, root=str(tmp_path / "other"), name="copy"))


def test_a_longer_cosine_alters_the_learning_rate(recorded, tmp_path):
    config = replace(recorded((), 0), optimizer=OptimizerConfig(schedule="cosine"))
    record_config(RunFolder(tmp_path / "run"), config)
    longer = replace(config, trainer=replace(config.trainer, steps=200))
    with pytest.raises(Refused, match=r"length of the cosine schedule: 100 -> 200 steps.* add --change"):
        open_run(longer)
    open_run(longer, change=True)


CONTENT = {
    "engine": "vllm",
    "model": {"config": "c", "tokenizer": "t", "weights": "w"},
    "prompts": {"prompts": 3, "digest": "d"},
    "held_out": {"prompts": 2, "digest": "h"},
}


@pytest.mark.parametrize(
    ("fact", "value", "refused", "changeable"),
    [
        ("prompts", {"prompts": 4, "digest": "e"}, r"the 4 prompts of data\.path.* are not the 3 that this run began with", False),
        ("prompts", {"prompts": 3, "digest": "d", "passes": "p"}, r"pass rates of data\.path differ from those", False),
        ("model", {"config": "x", "tokenizer": "t", "weights": "w"}, r"another model .*\(config differ", False),
        ("model", {"config": "c", "tokenizer": "t", "weights": "x"}, r"another model .*\(weights differ", False),
        ("model", {"config": "c", "tokenizer": "x", "weights": "w"}, r"model\.path: other tokenizer files", True),
        ("held_out", {"prompts": 2, "digest": "x"}, r"eval\.path: 2 -> 2 held-out prompts, with other content", True),
        ("held_out", None, r"eval\.path: 2 -> 0", True),
        ("engine", "transformers", r"rollout\.engine: 'vllm' -> 'transformers'", True),
    ],
)
def test_paths_are_compared_by_what_is_there(recorded, tmp_path, fact, value, refused, changeable):
    config = recorded((), 0)
    record_config(RunFolder(tmp_path / "run"), config, CONTENT)
    open_run(config, content=CONTENT)
    changed = CONTENT | {fact: value}
    with pytest.raises(Refused, match=refused):
        open_run(config, content=changed)
    if changeable:
        open_run(config, change=True, content=changed)
    else:
        with pytest.raises(Refused, match="cannot resume with this configuration"):
            open_run(config, change=True, content=changed)


def test_the_choice_of_prompts_is_over(recorded):
    config = replace(recorded((), 0), difficulty=DifficultyConfig(samples_per_prompt=8), curation=CurationConfig(drop_from=0.5))
    with pytest.raises(Refused, match="cannot resume") as error:
        open_run(config, change=True)
    for field in ("difficulty.samples_per_prompt: 0 -> 8", "curation.drop_from: 1.0 -> 0.5"):
        assert f"{field} (its prompts were chosen before the first step)" in str(error.value)


def test_a_nearer_end_that_is_still_ahead_is_free(recorded):
    config = recorded((), 0, step=3)
    assert open_run(replace(config, trainer=replace(config.trainer, steps=4))).changes.free == ("trainer.steps: 100 -> 4",)


def test_fewer_steps_than_are_trained(recorded):
    config = recorded((), 0, step=50)
    shorter = replace(config, trainer=replace(config.trainer, steps=49))
    with pytest.raises(Refused, match=r"trainer\.steps makes 49 the last step, but step 50 is trained"):
        open_run(shorter, change=True)


def test_a_field_that_is_newer_than_the_record_has_its_default(recorded, tmp_path):
    config = recorded((FIRST, SECOND), 1, step=4)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    del values["reward"]["timeout_s"], values["stage"][0]["drop_above"], values["content"], values["history"]
    path.write_text(json.dumps(values))
    assert open_run(config).changes == Changes()


def test_stages_cannot_take_the_place_of_a_run_without_them(recorded):
    config = replace(recorded((), 1), stage=(FIRST,))
    with pytest.raises(ValueError, match=r"started without \[\[stage\]\] tables; extend it with trainer.steps"):
        open_run(config)


def test_before_the_first_record_everything_may_change(recorded, tmp_path):
    config = replace(recorded((FIRST, SECOND), 0), stage=(HOTTER,), seed=7)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"")
    open_run(config)


def test_the_probe_may_change_between_two_stages_only(recorded):
    config = recorded((FIRST, SECOND), 1, step=3)
    changed = replace(config, probe=replace(config.probe, prompts=7))
    open_run(changed)


def test_the_probe_may_not_change_within_a_stage(recorded):
    config = recorded((FIRST, SECOND), 1, step=4)
    with pytest.raises(ValueError, match=r"probe\.prompts"):
        open_run(replace(config, probe=replace(config.probe, prompts=7)))


def test_a_place_that_cannot_hold_a_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"run cannot be written \(.*; choose another --root or --name"):
        open_run(RunConfig(root=str(tmp_path / "file"), name="run"))


def test_fresh_sets_results_of_a_phase_alone_aside_too_and_says_where(tmp_path, capsys):
    config = RunConfig(root=str(tmp_path), name="run")
    Result(tmp_path / "run" / "stages" / "difficulty.json").write({})
    open_run(config, fresh=True)
    assert not (tmp_path / "run" / "stages").exists()
    (moved,) = tmp_path.glob("run-before-*/stages/*")
    assert moved.name == "difficulty.json"
    assert capsys.readouterr().out == f"--fresh: the run that was in {tmp_path / 'run'} is now {moved.parents[1]}\n"


@pytest.mark.parametrize(("section", "field"), [("model", "path"), ("data", "path"), ("eval", "path")])
def test_fresh_does_not_take_away_what_the_new_run_reads(recorded, tmp_path, section, field):
    config = recorded((FIRST,), 0)
    config = replace(config, **{section: replace(getattr(config, section), **{field: str(tmp_path / "run" / "export" / "step-000001")})})
    with pytest.raises(Refused, match=rf"{section}\.{field} is in .*run, which --fresh would set aside; give another --name"):
        open_run(config, fresh=True)
    assert (tmp_path / "run" / "metrics.jsonl").is_file()


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_record_names_itself(recorded, tmp_path, text):
    config = recorded((FIRST, SECOND), 1)
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"run/config.json is damaged"):
        open_run(config)


def test_a_run_of_an_older_version_which_wrote_0_for_what_is_left_out_goes_on(recorded, tmp_path):
    config = recorded((FIRST, SECOND), 1, step=4)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    for section in (values, *values["stage"]):
        section |= {name: 0 for name, value in section.items() if value is None and name != "origin"}
    newer = ("correction_low", "success_above", "drop_up_to")  # which never were 0 for what is left out
    for section in filter(lambda value: isinstance(value, dict), list(values.values())):
        absent = [name for name, value in section.items() if value is None and name not in newer]
        section |= {name: "" if name in ("path", "column", "wandb_project") else 0 for name in absent}
    values["rope"]["attention_factor"] = values["sync"]["base_tolerance"] = 0.0
    assert (values["eval"]["path"], values["eval"]["temperature"], values["stage"][0]["max_response_tokens"]) == ("", 0, 0)
    path.write_text(json.dumps(values))
    assert open_run(config).changes == Changes()
    assert open_run(replace(config, eval=replace(config.eval, path="x.jsonl"))).changes.free == ("eval.path: None -> 'x.jsonl'",)
    with pytest.raises(Refused, match=r"rope\.max_positions: None -> 4096"):
        open_run(replace(config, rope=RopeConfig(max_positions=4096)))


def test_bounds_of_the_correction_are_compared_by_what_they_are(recorded, tmp_path):
    """Older versions recorded 0.5 and 2 where they are left out now."""
    config = recorded((), 0)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    values["algorithm"] |= {"correction_low": 0.5, "correction_high": 2.0}
    path.write_text(json.dumps(values))
    assert open_run(config).changes == Changes()
    with pytest.raises(Refused, match=r"algorithm\.correction_low: 0\.5 -> 0\.0"):
        open_run(replace(config, algorithm=replace(config.algorithm, correction_low=0.0)))
    masked = replace(config.algorithm, correction="geometric_mask")
    with pytest.raises(Refused, match=r"algorithm\.correction_high: 2\.0 -> 1\.01"):
        open_run(replace(config, algorithm=masked))


def test_what_an_error_names_as_its_remedy_may_change_at_a_resume(recorded):
    """Raising a tolerance or a time limit must not set the run aside."""
    config = recorded((FIRST, SECOND), 1, step=4)
    limits = DistributedConfig(update_timeout_minutes=90.0)
    open_run(replace(config, sync=SyncConfig(gap_factor=6.0, base_tolerance=0.4), distributed=limits))


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
            open_run(config)
    else:
        open_run(config)


@pytest.mark.parametrize(("staleness", "kind"), [(0, "free"), (1, "altering")])
def test_engines_may_move_where_the_samples_stay(recorded, staleness, kind):
    before = with_fields(recorded((), 0), "rollout", {"max_staleness": staleness})
    after = with_fields(before, "rollout", {"placement": "separate", "engine_ranks": 2})
    for one, other in ((before, after), (after, before)):
        found = find_changes(one, other, RunProgress(step=1, closed=0), {}, {})
        moved = f"rollout.placement: {one.rollout.placement!r} -> {other.rollout.placement!r}"
        assert moved in getattr(found, kind)
        assert len(found.free + found.altering + found.never) == 2
