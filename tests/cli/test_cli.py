import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    config = str(ROOT / "configs" / "embedded-grpo.toml")
    for overrides, message in (
        ([f"--data.path={tmp_path / 'set.jsonl'}", "--data.strict=true"], "set.jsonl:3 (empty); `polaris data check"),
        (
            [f"--data.path={tmp_path / 'good.jsonl'}", f'--data.decontaminate=["{tmp_path / "eval.jsonl"}"]'],
            "all 3 prompts are also in the sets of data.decontaminate",
        ),
        ([f'--data.decontaminate=["{tmp_path / "none.jsonl"}"]'], "none.jsonl does not exist"),
    ):
        command = [sys.executable, "-m", "polaris.cli", "train", config, *overrides]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr


def test_kernels_folder_is_no_package_from_the_repository_root():
    """The import name `kernels` belongs to Hugging Face's package, which transformers and vLLM look for."""
    code = "import kernels; print(kernels.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode != 0 or result.stdout.strip() == "None" or "site-packages" in result.stdout
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert importlib.util.find_spec("polaris_kernels") is not None


def test_bad_input_is_two_lines_and_status_2(tmp_path):
    for arguments, message in (
        (["export", str(tmp_path)], "is no run folder"),
        (["train", str(tmp_path / "none.toml")], "does not exist"),
        (["grade", str(tmp_path / "none.jsonl")], "does not exist"),
        (["data", "check", str(tmp_path / "none.jsonl")], "does not exist"),
        (["eval", "--model", "M"], "--suite; `polaris eval --help`"),
    ):
        result = subprocess.run([sys.executable, "-m", "polaris.cli", *arguments], capture_output=True, text=True)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2


def test_doctor_names_what_is_missing():
    result = subprocess.run([sys.executable, "-m", "polaris.cli", "doctor"], capture_output=True, text=True, check=True)
    assert "torch" in result.stdout
    for line in result.stdout.splitlines():
        assert "missing" not in line or "pip install" in line
