"""What `make package` writes: distributions that install and run outside of the repository, and a kernel repository for the hub."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import package_kernels
import pytest
import torch
from setuptools import build_meta

import polaris_kernels

README = Path(__file__).parents[2] / "kernels/README.md"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    package_kernels.distributions(folder)
    package_kernels.hub_kernel(folder / "hub")
    return folder


def run(python, code, folder):
    """Output of a program in `folder`, with nothing of this repository on its path but what `python` has installed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([python, "-c", code], cwd=folder, env=clean, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def installed(out, tmp_path):
    """Python of a new environment that holds the wheel and, by a path, the torch of this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    [wheel] = out.glob("*.whl")
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    packages = run(python, "import sysconfig; print(sysconfig.get_path('purelib'))", tmp_path)
    Path(packages, "torch.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_the_wheel_runs_the_readme_outside_of_the_repository(installed, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text().split("\n## ")[0], re.DOTALL)
    code = "\n".join(
        ["import polaris_kernels", *blocks, "print(polaris_kernels.__file__, polaris_kernels.__version__, loss.item() == loss.item())"]
    )
    file, version, finite = run(installed, code, tmp_path).split()
    assert file.startswith(str(tmp_path))
    assert (version, finite) == (polaris_kernels.__version__, "True")
    said = run(installed, "from importlib.metadata import version; print(version('polaris-kernels'))", tmp_path)
    assert said == polaris_kernels.__version__


def test_the_distributions_carry_license_types_and_changelog_and_the_sdist_builds_the_same_wheel(out, tmp_path, monkeypatch):
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"polaris_kernels/py.typed", "polaris_kernels/linear_logprob/README.md"} < set(names)
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    assert {"CHANGELOG.md", "LICENSE", "README.md"} < {path.name for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    again = tmp_path / build_meta.build_wheel(str(tmp_path))
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(names)


def test_the_readme_holds_no_link_that_a_package_index_cannot_follow():
    links = re.findall(r"\]\(([^()\s]+)\)", README.read_text())
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


LOAD = """
import importlib.util, sys, torch
from pathlib import Path

def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, Path(folder) / "__init__.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def score(module):
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    tokens = torch.randint(20, (6,)), -torch.rand(6), torch.randn(6), torch.rand(6) < 0.8
    logprob, entropy = module.linear_logprob(hidden, head, tokens[0])
    loss = module.policy_loss(logprob, *tokens[1:], 4.0)[0] + entropy.sum()
    loss = loss + module.logprob_from_logits(hidden @ head.T, tokens[0])[0].sum() + module.linear_policy_loss(hidden, head, *tokens, 4.0)[0]
    return torch.autograd.grad(loss, (hidden, head))
"""


def test_hub_copies_and_the_installed_package_live_in_one_process(out):
    """As the hub's own importer does it. While the first copy loads, nothing is there that has the package's name."""
    code = f"""{LOAD}
sys.modules["polaris_kernels"] = None
names = ["_polaris_kernels_cpu_1", "_polaris_kernels_cpu_2"]
copied = [score(load("{out}/hub/build/torch-cpu", name)) for name in names]
del sys.modules["polaris_kernels"]
import polaris_kernels
assert all(torch.equal(a, b) for other in copied for a, b in zip(score(polaris_kernels), other, strict=True))
print(*(hasattr(getattr(torch.ops, name), "linear_logprob") for name in ["polaris_kernels", *names]))
"""
    assert run(sys.executable, code, out) == "True True True"


def test_the_hub_loads_what_was_written(out):
    """With the loader of the hub's client. Needs it: `make test-peers`."""
    pytest.importorskip("kernels._rust", reason="kernels is not installed; make test-peers installs it")
    from kernels._rust import Digest, DigestAlgorithm, Metadata

    from kernels import get_local_kernel

    kernel = get_local_kernel(out / "hub", backend="cpu")
    assert kernel.__name__ == json.loads((out / "hub/build/torch-cpu/metadata.json").read_text())["id"]
    hidden, head, targets = torch.randn(4, 8), torch.randn(20, 8), torch.arange(4)
    for ours, theirs in zip(
        kernel.linear_logprob(hidden, head, targets), polaris_kernels.linear_logprob(hidden, head, targets), strict=True
    ):
        assert torch.equal(ours, theirs)
    for variant in (out / "hub/build").iterdir():
        metadata = Metadata.read_from_file(variant / "metadata.json")
        metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
        assert (str(metadata.name), metadata.version) == ("polaris-kernels", 0)
