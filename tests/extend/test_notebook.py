"""docs/notebook.md, cell by cell in one namespace."""

import re
from pathlib import Path

import pytest

CELL = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "notebook.md"


@pytest.mark.slow
def test_the_cells_run_in_their_order(tmp_path, monkeypatch, no_world):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for cell in CELL.findall(PAGE.read_text(encoding="utf-8")):
        exec(compile(cell, str(PAGE), "exec"), space)
    assert [record["step"] for record in space["records"]] == [1, 2]
    assert space["folder"] == Path("runs/from-a-notebook")
    assert space["score"]
    assert (tmp_path / "runs" / "eval-from-a-notebook" / "result.json").is_file()
