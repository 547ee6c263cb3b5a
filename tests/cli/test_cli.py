import importlib.util
import subprocess
import sys
from pathlib import Path

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


def test_kernels_folder_is_no_package_from_the_repository_root():
    """The import name `kernels` belongs to Hugging Face's package, which transformers and vLLM look for."""
    code = "import kernels; print(kernels.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode != 0 or result.stdout.strip() == "None" or "site-packages" in result.stdout
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert importlib.util.find_spec("polaris_kernels") is not None


def test_bad_input_is_two_lines_and_status_2(tmp_path):
    for arguments, message in (
        (["export", str(tmp_path)], "no complete checkpoint"),
        (["train", str(tmp_path / "none.toml")], "does not exist"),
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
