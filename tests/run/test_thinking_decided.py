"""`require_thinking = "auto"` on the real engine: what template and base model decide is kept, and holds for whatever goes on."""

import json
import shutil
from pathlib import Path

import pytest

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import Record, RunFolder, open_run, record_config
from polaris.checkpoint.store import TrainState
from polaris.config.load import load_config
from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.embedded import resolve
from polaris.embedded.tokenizer import CHAT_TEMPLATE
from polaris.observe.console import Console
from polaris.results import Result
from polaris.reward.protocol import RewardItem
from polaris.run.checks import check
from polaris.run.loop import train_to
from polaris.run.setup import open_recorder, open_sampling, open_training
from polaris.run.thinking import _known
from polaris.stop import StopRequest

# The first run on a new machine builds the embedded model.
pytestmark = pytest.mark.timeout(600)
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
START = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)


@pytest.fixture
def configured(tmp_path):
    """The embedded run with few prompts; `model` is another folder of the model, with what its template ends with."""
    problems = tmp_path / "set.jsonl"
    problems.write_text("".join(Path(resolve("embedded:train")).read_text().splitlines(keepends=True)[:8]))

    def configure(*overrides, ending=None):
        options = [f"--data.path={problems}", f"--root={tmp_path / 'runs'}", "--eval.path=none", "--rollout.engine=transformers"]
        options += [
            "--trainer.prompts_per_step=4",
            "--rollout.samples_per_prompt=2",
            "--observe.tensorboard=false",
            "--trainer.cpu_threads=1",
        ]
        if ending is not None:
            model = tmp_path / "model"
            shutil.copytree(resolve("embedded:model"), model, dirs_exist_ok=True)
            (model / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("<|assistant|>", f"<|assistant|>{ending}"))
            options.append(f"--model.path={model}")
        return load_config(CONFIG, [*options, *overrides])

    return configure


def decided(config, world):
    """What grading asks for, and what is kept of it."""
    folder = open_run(config, fresh=False, main=False)
    folder.path.mkdir(parents=True, exist_ok=True)
    with open_sampling(check(config), world, StopRequest(), Console(False, 0)) as context:
        (verdict,) = context.grader.score([RewardItem(response="\\boxed{1}", ground_truth="1")])
        assert context.config.reward.require_thinking is (verdict.kind == "no_answer")
    path = folder.stages / "thinking.json"
    return verdict.kind == "no_answer", json.loads(path.read_text())["why"] if path.is_file() else None


@pytest.mark.parametrize(
    ("ending", "overrides", "required", "why"),
    [
        (None, [], True, "32 of 32 responses open thinking"),
        ("<think>", [], True, "the chat template opens <think>"),
        ("<think></think>", [], False, "the chat template closes thinking"),
        (None, ["--reward.require_thinking=false"], False, None),
        ("<think></think>", ["--reward.require_thinking=true"], True, None),
    ],
)
def test_the_template_decides_or_else_the_model(configured, world, ending, overrides, required, why):
    assert decided(configured(*overrides, ending=ending), world) == (required, why)


def test_what_was_decided_stays_until_something_else_would_decide(configured, world):
    config = configured()
    assert decided(config, world)[0] is True
    path = Path(config.root) / config.name / "stages" / "thinking.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"required": False}))
    assert decided(config, world)[0] is False
    assert decided(configured("--seed=1"), world)[0] is True


def test_a_run_from_before_goes_on_as_it_was_graded(configured, world):
    """Its `config.json` names a bool, and nothing was decided; the model opens thinking, so "auto" would decide otherwise."""
    old, now = configured("--reward.require_thinking=false"), configured()
    folder = open_run(old, fresh=False, main=False)
    with open_training(check(old), world, StopRequest()) as context:
        record_config(folder, context.config)
        recorder = open_recorder(context, folder, 0)
        train_to(1, context, folder, START, recorder)
        recorder.close()
    assert decided(now, world) == (False, None)


def test_only_a_run_that_was_trained_decides_for_later_ones(tmp_path):
    folder, undecided = RunFolder(tmp_path), Result(tmp_path / "stages" / "thinking.json")
    record = folder.path / "config.json"
    record.write_text(Record(config=RunConfig(reward=RewardConfig(require_thinking=False))).to_json())
    assert _known(folder, undecided) is None, "nothing was trained"
    temporary = layout.temporary_folder(folder.checkpoints, 1)
    temporary.mkdir(parents=True)
    layout.commit(temporary, layout.step_folder(folder.checkpoints, 1))
    assert _known(folder, undecided).required is False
    record.unlink()
    assert _known(folder, undecided) is None
