"""What a program of a user's own imports: functions, whatever was imported before them, and nothing heavy before it is needed."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import programs
import pytest

from polaris.config.load import QUICKSTART, load_config
from polaris.errors import Refused
from polaris.stop import StopRequest
from polaris.train import train

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "vllm", "transformers", "triton", "sympy"}
TRAIN = (
    "import polaris.train; polaris.train.main, polaris.train.train",
    "from polaris.train import main, prepare, train; assert callable(train)",
    "from polaris import train; assert callable(train) and callable(train.main)",
    "import polaris; polaris.load_config; from polaris import load_config; assert load_config.__module__ == 'polaris.config.load'",
)
GRADE = (
    "import polaris.reward.grade; import sys; sys.modules['polaris.reward.grade'].decide",
    "from polaris.reward.grade import decide, grade; assert grade('\\\\boxed{1}', 1, require_thinking=False).reward",
    "from polaris.reward import grade, GroundTruth, Verdict; assert grade('\\\\boxed{1}', 1, require_thinking=False) == "
    "Verdict('correct', 'same text', '1', 1.0)",
    "import pickle, polaris.reward; assert pickle.loads(pickle.dumps(polaris.reward.grade)) is polaris.reward.grade",
)


@pytest.mark.parametrize("lines", [TRAIN, GRADE])
def test_exports_are_the_same_in_every_order_of_imports_and_load_nothing_heavy(lines):
    """One process, in which each order begins without any module of ours."""
    forget = "import sys; [sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] == 'polaris']"
    code = "\n".join(line for order in itertools.permutations(lines) for line in (forget, *order))
    code += f"\nimport sys; print(sorted({HEAVY!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


PROGRAM = """
import signal, sys
from contextlib import nullcontext
from pathlib import Path
from polaris import load_config, train
from polaris.errors import Refused

config, *overrides = sys.argv[1:]
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
folder = train(load_config(config, overrides))
assert isinstance(folder, Path)
print("folder:", folder)
altered = load_config(config, [*overrides, "--optimizer.lr=1e-5"])
try:
    train(altered)
except Refused as refused:
    print("refused:", refused)
print("folder:", train(altered, change=True))
assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_program_trains_and_gets_the_folder_and_may_train_again(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    small = ["--rollout.engine=transformers", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=64", "--eval.path=none"]
    small += ["--trainer.steps=2", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1", "--observe.tensorboard=false"]
    overrides = [*small, f"--root={tmp_path}", "--name=own"]
    result = programs.run(tmp_path / "program.py", ROOT / "configs" / "quickstart.toml", *overrides)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stdout.splitlines() if line.startswith(("folder: ", "refused: "))]
    assert said[0] == said[2] == f"folder: {tmp_path / 'own'}"
    assert "add --change to resume" in said[1]
    records = [json.loads(line) for line in (tmp_path / "own" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]


def test_signals_are_heard_inside_the_block_alone():
    before, stop = signal.getsignal(signal.SIGTERM), StopRequest()
    with stop.heard():
        signal.raise_signal(signal.SIGTERM)
    assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_program_of_ones_own_cleans_up_after_a_signal_during_the_start_and_after_a_second_one():
    """The command ends its process there: nothing is to be saved, or nobody wants to wait."""
    before, ended = signal.getsignal(signal.SIGINT), []

    def stopped(idle):
        stop = StopRequest()
        with stop.heard(), stop.at_once() if idle else nullcontext():
            try:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            finally:
                ended.append(idle)

    for idle in (True, False):
        with pytest.raises(SystemExit) as error:
            stopped(idle)
        assert error.value.code == 130
    assert ended == [True, False]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_path_in_the_place_of_a_configuration_is_refused_with_the_call():
    with pytest.raises(Refused, match=r"train\(load_config\('my.toml'\)\)"):
        train("my.toml")
    with pytest.raises(Refused, match=r'load_config\(path, \["--seed=1"\]\)'):
        load_config(QUICKSTART, "--seed=1")


def test_another_thread_hears_no_signals():
    before, found = signal.getsignal(signal.SIGTERM), []

    def train():
        with StopRequest().heard():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [before]
