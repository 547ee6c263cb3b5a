import importlib.util
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import programs
import pytest

from polaris.cli import _parser, main
from polaris.config.load import load_config
from polaris.doctor import diagnose
from polaris.errors import Refused

COLUMNS = 120
ROOT = Path(__file__).resolve().parents[2]


def polaris(*arguments, **options):
    return subprocess.run([sys.executable, "-X", "importtime", "-m", "polaris.cli", *arguments], capture_output=True, text=True, **options)


def test_help_loads_neither_torch_nor_vllm():
    result = polaris("--help")
    assert result.returncode == 0
    assert "export" in result.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "polaris" in imported
    assert not imported & {"torch", "vllm", "transformers"}


@pytest.mark.parametrize(("command", "word"), [(["grade"], "lm-evaluation-harness"), (["data", "check"], "13 words")])
def test_help_of_the_file_commands_is_light_and_says_the_rules(command, word):
    result = polaris(*command, "--help")
    assert result.returncode == 0
    assert word in " ".join(result.stdout.split())
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "vllm", "transformers", "sympy", "pyarrow", "rich"}


def test_grading_a_file_needs_neither_torch_nor_vllm(tmp_path):
    (tmp_path / "responses.jsonl").write_text('{"response": "\\\\boxed{1+x}", "answer": "x+1"}\n', encoding="utf-8")
    result = polaris("grade", str(tmp_path / "responses.jsonl"))
    assert result.returncode == 0
    assert "avg@1      100.00%" in result.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "vllm", "transformers", "sympy"}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first call builds the embedded model
def test_training_refuses_and_drops_rows_by_data_strict_and_data_decontaminate(tmp_path):
    rows = [{"problem": f"Compute {i}+1.", "answer": "" if i == 3 else str(i + 1)} for i in range(8)]
    for name, chosen in (("set", rows), ("good", rows[:3]), ("eval", rows[:3])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    config = str(ROOT / "configs" / "quickstart.toml")
    for overrides, message in (
        ([f"--data.path={tmp_path / 'set.jsonl'}", "--data.strict=true"], "set.jsonl:4 (empty); `polaris data check"),
        (
            [f"--data.path={tmp_path / 'good.jsonl'}", f'--data.decontaminate=["{tmp_path / "eval.jsonl"}"]'],
            "all 3 prompts are also in the sets of data.decontaminate",
        ),
        ([f'--data.decontaminate=["{tmp_path / "none.jsonl"}"]'], "none.jsonl does not exist"),
    ):
        result = programs.run("-m", "polaris.cli", "train", config, *overrides, folder=tmp_path)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr


def test_kernels_folder_is_no_package_from_the_repository_root():
    """The import name `kernels` belongs to Hugging Face's package, which transformers and vLLM look for."""
    code = "from importlib.util import find_spec; print(getattr(find_spec('kernels'), 'origin', None))"
    origin = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    assert origin == "None" or "site-packages" in origin  # the first for a namespace, which has no file
    assert importlib.util.find_spec("polaris_kernels") is not None


@pytest.mark.parametrize("command", [["grade", "x.jsonl"], ["data", "check", "x.jsonl"]])
@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_number_of_grading_processes_is_above_0_or_left_out(command, workers, capsys):
    assert _parser().parse_args(command).workers is None
    with pytest.raises(SystemExit, match="2"):
        _parser().parse_args([*command, f"--workers={workers}"])
    assert f"argument --workers: '{workers}' must be a whole number above 0; correct it, or leave it out" in capsys.readouterr().err


def test_bad_input_is_two_lines_and_status_2(tmp_path):
    for arguments, message in (
        (["export", str(tmp_path)], "is not a run folder"),
        (["train", str(tmp_path / "none.toml")], "does not exist"),
        (["grade", str(tmp_path / "none.jsonl")], "does not exist"),
        (["data", "check", str(tmp_path / "none.jsonl")], "does not exist"),
        (["eval", "--model", "M"], "--suite; `polaris eval --help`"),
    ):
        result = programs.run("-m", "polaris.cli", *arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("evl", "argument COMMAND: 'evl' is unknown; did you mean 'eval'?"),
        ("data chek x", "'chek' is unknown; did you mean 'check'?"),
        ("eval --model M --suite x --temprature 1 --max-tokens 5", "--temprature is unknown; did you mean '--temperature'?"),
        ("eval --model M --suite x --max_token=5", "--max_token is unknown; did you mean '--max-tokens'?"),
        ("eval --model M --suite x --engine vlm", "argument --engine: 'vlm' is unknown; did you mean 'vllm'?"),
        (f"eval --model M --suite x --dtype {'x' * 900}", " ... is unknown; there is float32"),
        (f"eval --model M --suite x -n {'x' * 900}", "-n/--samples: invalid int value"),
        ("eval --model M", "required: --suite; `polaris eval --help` lists what there is"),
        ("grade x y", "'y' is one argument too many; `polaris grade --help`"),
        ("doctor --all", "--all is unknown; `polaris doctor --help`"),
        ("temperature", "required: CONFIG; `polaris temperature --help`"),
    ],
)
def test_a_wrong_command_line_is_two_lines_at_most_with_the_nearest_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(arguments.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert len(error) <= 2 * COLUMNS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--rolout.temperature=1", "--rolout is unknown; did you mean 'rollout'?"),
        ("--rollout.temprature=1", "--rollout.temprature is unknown; did you mean 'temperature'?"),
        ("--lr=1e-6", "--lr is unknown; did you mean 'optimizer.lr'?"),
        ("--fress", "--fress is unknown; did you mean '--fresh'?"),
        ("--with_optimizer", "--with_optimizer is unknown; did you mean '--with-optimizer'?"),
        ("--rollout.colour=1", "--rollout.colour is unknown; `polaris train --help` lists what there is"),
        ("--rollout.learning_rate=1", "--rollout.learning_rate is unknown; here it is optimizer.lr"),
        ("--stage.0.colour=1", "--stage.0.colour is unknown; there is steps, max_response_tokens, temperature"),
        (f"--rollout.temperature={'hot' * 300}", " ... must be of type float"),
        (f"--algorithm.loss={'x' * 900}", "x ... is not one of 'dapo', 'grpo', 'dr_grpo', 'gspo', 'cispo'"),
        (f"--probe.temperatures={'x' * 900}", " ... must be a list"),
    ],
)
def test_a_wrong_field_or_value_is_two_lines_at_most_with_the_nearest_name(override, message, tmp_path):
    (tmp_path / "c.toml").write_text("[[stage]]\nsteps = 5\n")
    with pytest.raises(Refused) as refused:
        load_config(tmp_path / "c.toml", [override])
    error = f"polaris: {refused.value}"
    assert message in error
    assert "\n" not in error
    assert len(error) <= 2 * COLUMNS


def test_fields_that_resemble_an_option_of_train_are_fields(tmp_path):
    (tmp_path / "c.toml").write_text("")
    config = load_config(tmp_path / "c.toml", ["--optimizer.lr=2", "--root=from"])
    assert (config.optimizer.lr, config.root) == (2.0, "from")


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch):
    def parts():
        return {line.split()[0]: line for line in diagnose().splitlines()[1:]}

    assert "torch" in parts()
    assert version("torch") in parts()["torch"]
    assert "missing" not in parts()["torch"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("vllm", "reasoning_gym", "wandb") else True)
    missing = {name: line.partition("; missing: ")[2] for name, line in parts().items() if "missing" in line}
    assert missing.keys() == {"vllm", "reasoning_gym", "wandb"}
    assert missing["reasoning_gym"] == "pip install 'polaris-rl[gym]'"
    assert "polaris-rl[cpu]" in missing["vllm"]
    assert missing["wandb"] == "pip install wandb"


def test_ctrl_c_ends_a_command_on_files_with_130_and_no_traceback(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("polaris.cli._doctor", interrupted)
    monkeypatch.setattr(sys, "argv", ["polaris", "doctor"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


def test_a_dry_run_shows_the_plan_and_the_first_prompt_and_makes_no_folder(tmp_path):
    config = str(ROOT / "configs" / "quickstart.toml")
    command = ["-m", "polaris.cli", "train", config, "--dry-run", "--trainer.steps=4", "--name=x"]
    result = programs.run(*command, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    assert "steps 4 of 32 prompts x 8 responses; 0.031 times through the prompts" in words
    assert "run runs/x (new)" in words
    assert "<|user|>Compute" in words
    assert not (tmp_path / "runs").exists()
    wrong = programs.run(*command, "--trainer.prompts_per_step=5000", folder=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("polaris: 4096 prompts do not fill one step of 5000")


@pytest.mark.parametrize("arguments", [["train", "--version"], ["--version"]])
def test_the_version_is_said(arguments):
    assert polaris(*arguments).stdout.strip() == version("polaris-rl")


def test_evaluate_from_python_names_a_wrong_setting():
    from polaris import evaluate

    with pytest.raises(Refused, match="no setting 'sample_per_prompt'; did you mean 'samples_per_prompt'"):
        evaluate("embedded:model", "embedded:test", sample_per_prompt=4)


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_traceback(tmp_path):
    rows = "".join(json.dumps({"response": r"\boxed{1}", "answer": f"{number}"}) + "\n" for number in range(3))
    (tmp_path / "responses.jsonl").write_text(rows, encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "polaris.cli", "grade", str(tmp_path / "responses.jsonl")]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")
