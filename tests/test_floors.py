"""The floors of the house (docs/architecture.md): a folder imports only from those above it; folders and files have no circle."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("polaris", "doors", "errors", "files", "escapes", "host", "results", "stop", "types"),
    ("embedded",),
    ("config",),
    ("reward",),
    ("data",),
    ("algorithm",),
    ("distributed",),
    ("model",),
    ("plan",),
    ("rollout",),
    ("sync",),
    ("sampling",),
    ("learn",),
    ("checkpoint",),
    ("observe",),
    ("run",),
    ("supervised",),
    ("evaluation",),
    ("recipe",),
    ("commands",),
    ("cli", "train", "sft", "evaluate", "doctor"),
)
"""From the ground up. Files of one floor stand below `polaris/` itself and may import each other."""
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of `polaris` that it imports, inside of functions and for type checkers too."""
    files = {_module(path.relative_to(root)): path for path in (root / "polaris").rglob("*.py")}
    return {module: set(_imported(module, path, files)) - {module} for module, path in files.items()}


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom) and node.module in files:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & files.keys() or {node.module}


def folder(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a floor above the importer's own. `polaris` itself, which offers users what stands above, imports it when asked."""
    return sorted(f"{a} -> {b}" for a, found in graph.items() for b in found if FLOOR[folder(b)] > FLOOR[folder(a)] and a != "polaris")


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others: what is left after all without imports, or without importers, are taken away."""
    left = {module: set(found) for module, found in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = {module for module, found in left.items() if not found & left.keys() or module not in imported}
        if not ends:
            return sorted(left)
        left = {module: found - ends for module, found in left.items() if module not in ends}


def test_every_folder_has_a_floor():
    assert {folder(module) for module in imports(ROOT)} <= FLOOR.keys()


def test_every_package_says_in_one_sentence_what_it_is_for():
    packages = [*(ROOT / "polaris").rglob("__init__.py"), *(ROOT / "kernels" / "polaris_kernels").rglob("__init__.py")]
    said = {str(path): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in packages}
    assert [path for path, text in said.items() if not text] == []


def test_a_folder_imports_only_from_the_floors_below_it():
    assert upward(imports(ROOT)) == []


def test_files_have_no_circle():
    assert circles(imports(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("reward/grade.py", "from polaris.run.loop import train_to"),
        ("distributed/mesh.py", "def late() -> None:\n    from polaris.model import policy"),
        ("config/schema.py", "import polaris.rollout.engine"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path, file, line):
    shutil.copytree(ROOT / "polaris", tmp_path / "polaris", ignore=shutil.ignore_patterns("__pycache__", "configs"))
    path = tmp_path / "polaris" / file
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    found = upward(imports(tmp_path))
    assert len(found) == 1
    assert found[0].startswith(f"polaris.{file[:-3].replace('/', '.')} -> ")


def test_a_planted_circle_is_found(tmp_path):
    package = tmp_path / "polaris"
    package.mkdir()
    for name, text in {
        "a": "from polaris import b",
        "b": "import polaris.c",
        "c": "from polaris.a import x",
        "d": "import polaris.a",
    }.items():
        (package / f"{name}.py").write_text(text)
    (package / "__init__.py").touch()
    assert circles(imports(tmp_path)) == ["polaris.a", "polaris.b", "polaris.c"]
