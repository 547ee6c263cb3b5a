"""Write what is published of polaris_kernels into a folder: a wheel, a source distribution and `hub`, a kernel repository.

The Hugging Face kernels hub loads a kernel from any folder under a name of its own, so nothing in it may import the package by name:
https://huggingface.co/docs/kernels/kernel-requirements. A kernel without compiled code is there once per backend, as the same files.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from setuptools import build_meta

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
PACKAGE = "polaris_kernels"
BACKENDS = ("cpu", "cuda")
_OWN_IMPORT = re.compile(rf"^(\s*from ){PACKAGE}(?:\.([\w.]+))?( import )", re.MULTILINE)
_CARD = """---
library_name: kernels
license: apache-2.0
---

{summary}

Version {version} of the Python package `polaris-kernels`, whose README describes every operation.

```python
from kernels import get_local_kernel  # or get_kernel, with the name of the repository that holds these files

{package} = get_local_kernel(folder)
logprob, entropy = {package}.linear_logprob(hidden, head, targets, temperature=1.0)
```
"""


def main() -> None:
    out = Path(sys.argv[1])
    distributions(out)
    hub_kernel(out / "hub")


def distributions(out: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist into `out`, from a copy, so that the working tree stays clean; their paths."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "kernels"
        shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        with chdir(copy):
            return out / build_meta.build_wheel(os.fspath(out)), out / build_meta.build_sdist(os.fspath(out))


def hub_kernel(out: Path) -> None:
    """Write a kernel repository: `build/torch-<backend>` with the package's files and metadata, the card and the license."""
    files = _relative_files()
    version, summary = _of_package(files["__init__.py"])
    content = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:7]
    for backend in BACKENDS:
        folder = out / "build" / f"torch-{backend}"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        metadata = {
            "name": PACKAGE.replace("_", "-"),
            "id": f"_{PACKAGE}_{backend}_{content}",
            "version": int(version.partition(".")[0]),
            "license": "Apache-2.0",
            "python-depends": [],
            "backend": {"type": backend},
            "digest": {"algorithm": "sha256", "files": {name: _digest(text) for name, text in files.items()}},
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_CARD.format(summary=summary, version=version, package=PACKAGE), encoding="utf-8")
    shutil.copy(KERNELS / "LICENSE", out)


def _relative_files() -> dict[str, str]:
    """Text of each module by its path in the package, with relative imports; integrations patch installed packages and stay behind."""
    files = {}
    for path in sorted((KERNELS / PACKAGE).rglob("*.py")):
        name = path.relative_to(KERNELS / PACKAGE)
        if name.parts[0] != "integrations":
            files[name.as_posix()] = _relative(path.read_text(encoding="utf-8"), "." * len(name.parts))
    return files


def _relative(source: str, dots: str) -> str:
    found = _OWN_IMPORT.sub(lambda match: f"{match[1]}{dots}{match[2] or ''}{match[3]}", source)
    for node in ast.walk(ast.parse(found)):
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any((name or "").partition(".")[0] == PACKAGE for name in names), f"write this as `from {PACKAGE}.x import y`: {names}"
    return found


def _of_package(source: str) -> tuple[str, str]:
    """`__version__` and docstring of the package, read and not imported."""
    module = ast.parse(source)
    [version] = [
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    return version, ast.get_docstring(module) or ""


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    main()
