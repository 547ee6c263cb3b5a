"""scripts/mutants: what it changes, what it leaves alone, and a hunt in a small tree from the recording of calls to the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.sites import mutants_of

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "mutants"

SOURCE = b'''"""Doc."""

LIMIT = 3


@cache(size=4)
def share(a: Literal["x", 1], part: float = 0.5) -> int | None:
    """Doc 5."""
    assert a > 1, "no"
    if a <= LIMIT and not part:
        raise ValueError(f"{a + 1} is too small")
    total.add(a)
    return min(a * part, pow(a, 7))
'''


def test_every_kind_of_change_and_nothing_that_tests_cannot_see():
    found = {(mutant.kind, mutant.after) for mutant in mutants_of("x.py", SOURCE)}
    assert found == {
        ("constant", "LIMIT = 4"),
        ("constant", 'def share(a: Literal["x", 1], part: float = 0.75) -> int | None:'),
        ("comparison", "if (a < LIMIT) and not part:"),
        ("boolean", "if (a <= LIMIT or not part):"),
        ("sign", "if a <= LIMIT and (part):"),
        ("dropped", "pass"),
        ("return", "return None"),
        ("arguments", "return min(a * part, pow(7, a))"),
        ("arithmetic", "return min((a / part), pow(a, 7))"),
        ("constant", "return min(a * part, pow(a, 8))"),
    }
    for mutant in mutants_of("x.py", SOURCE):
        compile(mutant.apply(SOURCE), "x.py", "exec")
        assert mutant.function == (0 if mutant.line == 3 else 7)


def test_an_id_does_not_depend_on_other_lines():
    first = {mutant.id for mutant in mutants_of("x.py", SOURCE)}
    assert {mutant.id for mutant in mutants_of("x.py", SOURCE.replace(b"LIMIT = 3", b"import numpy\n\nLIMIT = 3"))} == first
    assert len(first) == len(mutants_of("x.py", SOURCE))


HALF = """def half(x: int) -> int:
    return x // 2


def unused(x: int) -> int:
    return x + 1
"""
TEST = """from polaris.data.half import half


def test_half():
    assert half(8) == 4


def test_zero():
    assert half(0) == 0
"""
FILES = {"polaris/__init__.py": "", "polaris/data/__init__.py": "", "polaris/data/half.py": HALF, "tests/data/test_half.py": TEST}


@pytest.mark.slow
def test_a_hunt_in_a_small_tree(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "tree", check=True)
    command = [sys.executable, SCRIPT, "--root", tmp_path / "tree", "--journal", tmp_path / "journal", "--package", "data", "--count", "99"]
    first = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"POLARIS_CACHE": str(tmp_path / "none")})
    # x * 2, 3 and None for x // 2 die; nobody calls the other function, whose three live.
    assert "data                 6      0     3     3    50%" in first.stdout, first.stdout
    assert "polaris/data/half.py:6 return (no test calls it)\n- return x + 1\n+ return None" in first.stdout
    assert (tmp_path / "tree" / "polaris/data/half.py").read_text() == HALF, "the tree itself is left alone"
    again = subprocess.run([*command, "--report"], capture_output=True, text=True, check=True)
    assert again.stdout.endswith(first.stdout[first.stdout.index("package  ") :])
