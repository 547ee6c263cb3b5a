"""What `pip install` from a wheel leaves, far from the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from pathlib import Path
import polaris
from polaris.config.load import CONFIGS, QUICKSTART, load_config
from polaris.embedded import resolve
assert Path(polaris.__file__).is_relative_to({target!r}), polaris.__file__
assert load_config(QUICKSTART, []).name == "quickstart"
assert Path(resolve("embedded:train")).is_file()
print(sorted(path.name for path in CONFIGS.iterdir() if path.is_file()))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first call builds the embedded model
def test_an_installed_wheel_has_the_configurations_and_the_licence(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("polaris", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    (licence,) = target.glob("polaris_rl-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes() == (ROOT / "kernels" / "LICENSE").read_bytes()
    command = [sys.executable, "-c", CODE.format(target=str(target))]
    result = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_file()))
