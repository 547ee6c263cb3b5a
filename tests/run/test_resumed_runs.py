"""Whole runs of the real program, stopped half-way: moved, resumed with other settings, closed, branched.

benchmarks/recipe/resume.py measures each freed change alone; here, those that keep the order of float sums are made in one resume, and
those that do not in two more.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from programs import run_ranks
from safetensors.torch import load_file

from polaris import train
from polaris.checkpoint import layout, run_folder
from polaris.checkpoint.run_folder import RunFolder
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.evaluation import engine_source
from polaris.observe.metrics import deterministic, read_records
from polaris.observe.samples import RolloutRecorder
from polaris.recipe.job import train_and_evaluate
from polaris.run import resume as resuming
from polaris.run import setup
from polaris.run.loop import Recorder
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.stop import StopRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
# The first run on a new machine builds the embedded model.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SMALL = [
    "--seed=1",
    "--rollout.engine=transformers",
    "--rollout.samples_per_prompt=4",
    "--trainer.prompts_per_step=8",
    "--trainer.cpu_threads=1",
    "--checkpoint.every=2",
    "--eval.every=2",
    "--eval.samples_per_prompt=1",
    "--observe.tensorboard=false",
    "--reward.process.most=0.5",
    r"--reward.process.marker=[=:](-?\d+)",
]
LAST = 4
ROUNDING = {"weights": 5e-7, "numbers": 2e-5, "mismatch/logprob_gap_max": 5e-5}
"""Two to four times the largest difference of a weight, and of a number in the records, that another order of float sums has made, on CPU
in float32. The largest gap of a log-prob is itself a maximum of rounding."""
EXACT = {"weights": 0.0, "numbers": 0.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with small prompt sets whose rows have no ids of their own."""
    root = tmp_path_factory.mktemp("resumed")
    for name, size in (("train", 24), ("test", 8)):
        rows = [json.loads(line) for line in Path(resolve(f"embedded:{name}")).read_text().splitlines()[:size]]
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"problem": r["problem"], "answer": r["answer"]}) + "\n" for r in rows))
    return root


def arguments(root, name, *overrides):
    data = [f"--data.path={root / 'train.jsonl'}", f"--eval.path={root / 'test.jsonl'}"]
    return [str(CONFIG), *SMALL, *data, f"--root={root}", f"--name={name}", f"--trainer.steps={LAST}", *overrides]


def prepare(*given):
    run_folder._HELD.clear()  # as a new process would begin
    return train.prepare(arguments(*given))


def run(world, *given, stop=None):
    """The run's folder after `polaris train`."""
    prepared = prepare(*given)
    train_and_evaluate(*prepared, world, stop or StopRequest())
    return prepared[1].path


@pytest.fixture(scope="module")
def straight(world, root):
    """A run that nothing interrupted."""
    return run(world, root, "straight")


@pytest.fixture(scope="module")
def half(world, root):
    """The same, ended after half of its steps."""
    return run(world, root, "half", "--trainer.steps=2")


@pytest.fixture
def copy(half, tmp_path):
    """A function that gives a copy of the half run a name."""

    def copy(name):
        shutil.copytree(half, half.parent / name)
        return name

    return copy


def records(path):
    return [deterministic(record) for record in read_records(path / "metrics.jsonl")]


def weights(path):
    return load_file(path / "export" / f"step-{LAST:06d}" / "model.safetensors")


def assert_same(path, straight, tolerance=EXACT):
    assert len(records(path)) == len(records(straight))
    for mine, theirs in zip(records(path), records(straight), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value, rel=0, abs=tolerance.get(key, tolerance["numbers"])), (mine["step"], key)
    mine, theirs = weights(path), weights(straight)
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) <= tolerance["weights"]


def test_moved_and_resumed_with_other_resources_it_is_bit_for_bit_the_same(world, root, straight, copy, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(root / copy("moved"), elsewhere / "renamed")
    for old, new in (("train", "prompts"), ("test", "held-out")):
        shutil.copy(root / f"{old}.jsonl", elsewhere / f"{new}.jsonl")
    shutil.copytree(resolve("embedded:model"), elsewhere / "model")
    places = [f"--root={elsewhere}", f"--model.path={elsewhere / 'model'}", f"--data.path={elsewhere / 'prompts.jsonl'}"]
    resources = ["--reward.workers=2", "--rollout.kv_cache_mib=128", "--rollout.gpu_memory_fraction=0.5"]
    overrides = [*places, f"--eval.path={elsewhere / 'held-out.jsonl'}", *resources, "--memory.activations=recompute"]
    path = run(world, root, "renamed", *overrides)
    assert path == elsewhere / "renamed"
    assert_same(path, straight)
    (entry,) = RunFolder(path).record().history
    assert (entry["step"], entry["changes"]) == (2, [])
    assert "reward.workers: 1 -> 2" in entry["free"]
    results = [pq.read_table(one / "checkpoints" / f"step-{LAST:06d}" / "results.parquet") for one in (path, straight)]
    assert results[0] == results[1]
    assert records(straight)[-2]["reward/process_mean"] > 0, "the fourth step is the second epoch's first"


SMALLER = ["--trainer.tokens_per_pack=300", "--rollout.max_concurrent=5"]


def test_smaller_packs_and_batches_change_rounding_alone(world, root, straight, copy):
    path = run(world, root, copy("smaller"), *SMALLER)
    assert records(path)[-2]["step"] == LAST
    assert_same(path, straight, ROUNDING)


@pytest.mark.distributed
def test_a_run_of_one_rank_goes_on_with_two(root, straight, copy):
    said, _ = run_ranks(2, "-m", "polaris.train", *arguments(root, copy("ranks")))
    assert "2 ranks" in said
    assert_same(root / "ranks", straight, ROUNDING)


def test_what_alters_results_is_said_in_console_report_and_record(world, root, straight, copy, capsys):
    changed = ["--optimizer.lr=5e-5", "--optimizer.weight_decay=0.5", "--trainer.prompts_per_step=4"]
    name = copy("changed")
    with pytest.raises(Refused, match=r"optimizer\.lr: 0\.0001 -> 5e-05; .*add --change"):
        prepare(root, name, *changed)
    path = run(world, root, name, *changed, "--change")
    assert "from step 3 on: optimizer.lr: 0.0001 -> 5e-05; " in capsys.readouterr().out
    (entry,) = RunFolder(path).record().history
    assert (entry["step"], len(entry["changes"])) == (2, 3)
    assert "optimizer.weight_decay: 0.01 -&gt; 0.5" in (path / "report.html").read_text()
    steps = [record for record in records(path) if "reward/mean" in record]
    assert [record["optimizer/lr"] for record in steps] == [1e-4, 1e-4, 5e-5, 5e-5]
    assert [record["groups/drawn"] for record in steps] == [8, 8, 4, 4]
    assert [record for record in records(path) if record["step"] <= 2] == [record for record in records(straight) if record["step"] <= 2]
    assert run(world, root, name, *changed) == path, "what was changed is what the run has now"
    assert RunFolder(path).record().history == (entry,)


class StopAt(StopRequest):
    """Asked to stop as soon as a step is recorded."""

    reached = False

    def requested(self):
        return self.reached


def test_a_stop_between_a_stages_last_step_and_its_closing(world, root, straight, monkeypatch, capsys):
    stop, write = StopAt(), Recorder.step

    def stop_after_the_last(recorder, record, groups, samples):
        write(recorder, record, groups, samples)
        stop.reached = record["step"] == LAST

    monkeypatch.setattr(Recorder, "step", stop_after_the_last)
    path = run(world, root, "unclosed", stop=stop)
    monkeypatch.undo()
    assert "stopped: 4 steps" in capsys.readouterr().out
    assert layout.complete_steps(path / "checkpoints") == [2, LAST]
    assert not (path / "stages" / "stage-1.json").exists(), "its last evaluation is missing"
    assert not (path / "export").exists()
    assert records(path) == records(straight)[:-1]
    run(world, root, "unclosed")
    assert (path / "stages" / "stage-1.json").is_file()
    assert_same(path, straight)


def noted(function, name, stop, at_once):
    """`function`, which writes down whether a signal would end the process at once."""

    def call(*arguments, **options):
        at_once[name] = stop._idle
        return function(*arguments, **options)

    return call


def test_a_finished_run_with_a_final_suite_is_done_and_not_stopped(world, root, copy, capsys, monkeypatch):
    stop, at_once = StopRequest(), {}
    for module, name in ((setup, "load_policy"), (setup, "create_engine"), (resuming, "load"), (engine_source, "create_engine")):
        monkeypatch.setattr(module, name, noted(getattr(module, name), f"{module.__name__}.{name}", stop, at_once))
    monkeypatch.setattr(RolloutRecorder, "__init__", noted(RolloutRecorder.__init__, "trains", stop, at_once))
    final = [f'--final.suite=["{root / "test.jsonl"}"]', "--final.samples_per_prompt=1", "--final.rope_factors=[1.0]"]
    path = run(world, root, copy("evaluated"), *final, "--final.max_response_tokens=96", "--final.prompt_suffix=", stop=stop)
    output = capsys.readouterr().out
    assert at_once.pop("trains") is False
    assert len(at_once) == 4
    assert all(at_once.values()), "a signal ends the process while models are read and engines start"
    assert "done: 4 steps" in output
    assert "stopped" not in output
    assert (path / "stages" / "evaluation" / "step-000004" / "result.json").is_file()


@pytest.mark.parametrize("optimizer", [False, True])
def test_a_branch_begins_with_the_checkpoint_of_another_run(world, root, half, optimizer, capsys):
    name = f"branch-{optimizer}"
    flags = ["--from", f"{half}@step-2", *(["--with-optimizer"] if optimizer else [])]
    checked, folder = prepare(root, name, *flags)
    assert (checked.origin.step, checked.config.model.path) == (2, str(half / "export" / "step-000002"))
    source, _ = prepare(root, "half", "--trainer.steps=2")
    with open_training(source, world, StopRequest()) as context:
        assert resume(context, RunFolder(half)).step == 2
        expected = (context.learner.optimizer.state_dict()["state"], dict(context.learner.policy.named_weights()))
    with open_training(checked, world, StopRequest()) as context:
        assert resume(context, folder, checked.origin).step == 0
        assert all(torch.equal(weight, expected[1][name]) for name, weight in context.learner.policy.named_weights())
        moments = context.learner.optimizer.state_dict()["state"]
        for index, values in expected[0].items():
            for kind, value in values.items():
                mine, theirs = (torch.as_tensor(getattr(one, "_local_tensor", one)) for one in (moments[index][kind], value))
                assert torch.equal(mine, theirs if optimizer else torch.zeros_like(theirs)), kind
    path = run(world, root, name, *flags, "--trainer.steps=1")
    part = "weights and optimizer" if optimizer else "weights"
    facts = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["begins", "with", f"{half}, step 2 ({part})"] in facts
    assert (RunFolder(path).record().origin.step, RunFolder(path).record().origin.part) == (2, part)
    assert f"Began with {half}, step 2 ({part})." in (path / "report.html").read_text()
