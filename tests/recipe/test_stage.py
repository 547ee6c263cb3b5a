"""Where a stage begins and ends: its steps, its settings, its cursor, and the prompts that it leaves behind."""

import time
from dataclasses import replace

import pytest
import torch
from groups import group
from scripted import for_training, on_ranks, prompts_named

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.data import DataConfig, SetConfig
from polaris.config.recipe import FinalConfig, StageConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.data.pass_rates import PassRates
from polaris.learn.success_buffer import SuccessBuffer
from polaris.recipe import final
from polaris.recipe.final import last_temperature
from polaris.recipe.plan import plan_stages, stage_config
from polaris.recipe.stage import close_stage, dropped_by, easiest, open_stage, without
from polaris.recipe.stage_temperature import stage_temperature
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted
from polaris.sampling.carried import Started

STAGES = (StageConfig(steps=3, drop_above=0.6), StageConfig(steps=5, max_response_tokens=64, temperature=0.9, eval_temperature=0.4))
CONFIG = RunConfig(
    rollout=RolloutConfig(temperature=0.7, max_response_tokens=32), trainer=TrainerConfig(prompts_per_step=2), stage=STAGES, seed=4
)
RATES = {"a": (1, 8), "b": (8, 8), "c": (5, 8), "d": (7, 8), "e": (0, 8), "f": (8, 8)}


def state(step, epoch=0, cursor=0):
    return TrainState(step=step, version=step, sampler={"epoch": epoch, "cursor": cursor}, nonfinite_streak=0)


def on_one_rank(work, config=CONFIG, names="abcdef", **fields):
    pass_rates = PassRates()
    for name, counts in RATES.items():
        pass_rates.add(name, *counts)
    parts = {"prompts": prompts_named(names), "pass_rates": pass_rates, **fields}
    (result,), _ = on_ranks(config, lambda context: work(for_training(context, **parts)))
    if isinstance(result, Exception):
        raise result
    return result


def test_stages_follow_each_other():
    first, second = plan_stages(CONFIG)
    assert [(s.index, s.start, s.end) for s in (first, second)] == [(0, 0, 3), (1, 3, 8)]
    assert CONFIG.steps == 8
    own, later = stage_config(CONFIG, first, 0.7), stage_config(CONFIG, second, 0.9)
    assert (own.rollout.max_response_tokens, own.rollout.temperature, own.eval.temperature) == (32, 0.7, None)
    assert (later.rollout.max_response_tokens, later.rollout.temperature, later.eval.temperature) == (64, 0.9, 0.4)


@pytest.mark.parametrize(("stage", "temperature"), [(0, 0.7), (1, 0.9)])
def test_a_number_is_the_stages_temperature_and_nothing_is_drawn(tmp_path, stage, temperature):
    def work(context):
        assert stage_temperature(context, plan_stages(CONFIG)[stage], tmp_path, begun=False) == temperature
        assert context.sampling.engine.asked == []
        return True

    assert on_one_rank(work)
    assert last_temperature(CONFIG, tmp_path) == 0.9


def test_the_last_temperature_may_have_been_measured(tmp_path):
    probed = replace(CONFIG, stage=(STAGES[0], replace(STAGES[1], temperature="probe")))
    with pytest.raises(ValueError, match=r"set final\.temperature"):
        last_temperature(probed, tmp_path)
    Result(plan_stages(probed)[1].temperature_result(tmp_path)).write({"temperature": 1.3})
    assert last_temperature(probed, tmp_path) == 1.3
    assert last_temperature(replace(CONFIG, stage=STAGES[:1]), tmp_path) == 0.7, "that of the rollouts, where the stage has none"


def test_track_begins_where_the_stage_before_ended_and_is_evaluated_there(tmp_path):
    stages = (STAGES[0], StageConfig(steps=2, temperature="track"), StageConfig(steps=2, temperature="track"), StageConfig(temperature=1.1))
    config = replace(CONFIG, stage=stages)
    plan = plan_stages(config)

    def work(context):
        opened = open_stage(context, plan[1], state(3), tmp_path)
        assert (opened.temperature, opened.config.rollout.temperature) == (0.7, 0.7)
        opened.tracker.track = replace(opened.tracker.track, temperature=0.85)
        assert (opened.temperature, opened.config.rollout.temperature) == (0.85, 0.7), "evaluations of a stage can be compared"
        close_stage(opened, plan[1], tmp_path)
        assert plan[1].last_temperature(tmp_path, "") == 0.85
        resumed = open_stage(context, plan[1], state(4), tmp_path)
        assert (resumed.temperature, resumed.config.rollout.temperature) == (0.85, 0.7)
        assert open_stage(context, plan[2], state(5), tmp_path).temperature == 0.85
        assert open_stage(context, plan[3], state(7), tmp_path).temperature == 1.1
        assert context.tracker.track is None
        with pytest.raises(ValueError, match=r'has begun with one temperature; "track" can begin with a later stage'):
            open_stage(context, plan[1], state(4), tmp_path)
        assert context.sampling.engine.asked == []
        return True

    assert on_one_rank(work, config)
    assert last_temperature(replace(config, stage=stages[:2]), tmp_path) == 0.85


def test_no_rank_reads_the_export_before_it_is_there(tmp_path, monkeypatch):
    seen = []

    def late_export(run, output, step):
        time.sleep(0.3)
        output.mkdir(parents=True)

    def settings_of(config, checkpoint, temperature):
        seen.append((checkpoint.is_dir(), checkpoint.name, temperature))
        raise GenerationInterrupted

    monkeypatch.setattr(final, "export", late_export)
    monkeypatch.setattr(final, "final_settings", settings_of)
    config = replace(CONFIG, final=FinalConfig(suite=("x",)))

    def work(context):
        context.world.device = torch.device("cpu")
        return final.finish(config, RunFolder(tmp_path), context.world, context.stop)

    results, _ = on_ranks(config, work, stops_after=(None, None))
    assert seen == [(True, "step-000008", 0.9)] * 2, results


@pytest.mark.parametrize(
    ("stage", "before", "cursor"),
    [
        (0, state(0), {"epoch": 0, "cursor": 0}),
        (0, state(2, 1, 2), {"epoch": 1, "cursor": 2}),
        (1, state(3, 1, 4), {"epoch": 2, "cursor": 0}),
        (1, state(4, 2, 2), {"epoch": 2, "cursor": 2}),
    ],
    ids=["first", "first resumed", "second", "second resumed"],
)
def test_a_stage_begins_with_an_epoch_of_its_own_and_a_resumed_one_where_it_stood(tmp_path, stage, before, cursor):
    successes = SuccessBuffer(2)
    successes.add([group(name, "+") for name in "ax"])

    def work(context):
        opened = open_stage(context, plan_stages(CONFIG)[stage], before, tmp_path)
        return opened, opened.source.sampler.state()

    opened, where = on_one_rank(work, successes=successes)
    assert where == cursor
    assert opened.stage == stage
    assert opened.config.rollout.temperature == (0.7, 0.9)[stage]
    assert successes.of("a")
    assert not successes.of("x"), "its prompt is no longer trained on"


@pytest.mark.parametrize(
    ("drop_above", "names", "dropped"),
    [
        (0.6, "abcdef", ["b", "f", "d", "c"]),
        (0.625, "abcdef", ["b", "f", "d"]),
        (1.0, "abcdef", []),
        (0.6, "bcdf", ["b", "f"]),
        (0.6, "bc", []),
        (0.0, "aexy", ["a"]),
    ],
    ids=["above", "not equal", "none", "as many as leave one step", "no step to spare", "unseen ones stay"],
)
def test_the_easiest_go_first_and_one_step_is_left(drop_above, names, dropped):
    assert on_one_rank(lambda context: easiest(context, drop_above), names=names) == dropped


def test_the_end_of_a_run_without_stages_is_no_end_of_a_stage(tmp_path, capsys):
    config = replace(CONFIG, stage=())
    (stage,) = plan_stages(config)
    assert on_one_rank(lambda context: close_stage(context.with_config(config), stage, tmp_path)) == []
    assert "stage 1 ends" not in capsys.readouterr().out
    assert dropped_by(stage, tmp_path) == []


def test_a_closed_stage_tells_what_it_dropped(tmp_path, capsys):
    stage = plan_stages(CONFIG)[0]
    assert dropped_by(stage, tmp_path) is None
    assert on_one_rank(lambda context: close_stage(context, stage, tmp_path)) == ["b", "f", "d", "c"]
    assert "stage 1 ends: 4 prompts above 0.6 dropped, 2 left, one step, the least that is kept" in capsys.readouterr().out
    assert Result(tmp_path / "stage-1.json").read() == {
        "step": 3,
        "drop_above": 0.6,
        "dropped": ["b", "f", "d", "c"],
        "left": 2,
        "temperature": 0.7,
    }
    assert dropped_by(stage, tmp_path) == ["b", "f", "d", "c"]
    assert dropped_by(replace(stage, end=4), tmp_path) is None, "it was closed at an earlier step than it has now"
    assert on_one_rank(lambda context: close_stage(context, stage, tmp_path), names="ab") == ["b", "f", "d", "c"], "closed once"
    assert capsys.readouterr().out == ""
    assert [prompt.id for prompt in without(prompts_named("abcdef"), ["b", "f", "d", "c"])] == ["a", "e"]


def test_enough_of_each_weighted_set_is_left_for_one_step():
    """An epoch of equal parts holds twice the smaller set, which must not become smaller than half a step; it may go as a whole."""
    sets = (SetConfig(path="a", weight=1.0), SetConfig(path="b", weight=1.0))
    prompts = tuple(replace(prompt, set="a" if prompt.id in "bf" else "b") for prompt in prompts_named("abcdef"))

    def work(context):
        return easiest(replace(context, source=replace(context.source, prompts=prompts)), 0.6)

    for sized, dropped in ((2, ["b", "f", "d", "c"]), (4, [])):
        config = replace(CONFIG, data=DataConfig(sets=sets), trainer=TrainerConfig(prompts_per_step=sized))
        assert on_one_rank(work, config) == dropped
    assert on_one_rank(work, replace(CONFIG, trainer=TrainerConfig(prompts_per_step=4))) == ["b", "f"], "without weights"


MORE = replace(CONFIG, rollout=replace(CONFIG.rollout, oversample=1.5))


def test_as_many_prompts_are_left_as_a_step_begins(tmp_path, capsys):
    assert on_one_rank(lambda context: easiest(context, 0.6), MORE) == ["b", "f", "d"]
    on_one_rank(lambda context: close_stage(context, plan_stages(MORE)[0], tmp_path), MORE)
    assert "3 left, one step, the least that is kept" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "left"), [(state(3, 1, 4), ()), (state(4, 2, 2), ("a",))], ids=["a new stage", "a resumed one"])
def test_a_stage_begins_without_prompts_of_the_one_before(tmp_path, before, left):
    """Only --change can end a stage at a step that has left something: its prompts come again in the new epoch, or are dropped."""

    def work(context):
        context.source.carried.started = (Started(prompt_id="a", step=3),)
        return open_stage(context, plan_stages(MORE)[1], before, tmp_path).source.carried.started

    assert tuple(one.prompt_id for one in on_one_rank(work, MORE)) == left
