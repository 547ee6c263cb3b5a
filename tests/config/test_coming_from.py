"""docs/coming_from.md: every name of another trainer is answered with the key beside it, and every line of configuration loads."""

import re
from pathlib import Path

import pytest

from polaris.config.load import load_config
from polaris.errors import Refused

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming_from.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
CODE = re.compile(r"`([^`]+)`")
MINE = """
def reward(response, ground_truth): return 0.0
def tone(response): return 0.0
def loss(batch, settings): return -batch.logprob
def calculator(rollout): ...
class Hook: ...
"""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_wish_has_one_answer(row, tmp_path):
    _, *theirs, here = row
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "template.jinja").write_text("{{ messages[0]['content'] }}")
    ours = CODE.findall(here)
    (tmp_path / "my.toml").write_text("\n".join(ours))
    load_config(tmp_path / "my.toml")
    key = ours[0].partition(" =")[0] if ours else "docs/limits.md"
    for name in (name for cell in theirs for name in CODE.findall(cell)):
        with pytest.raises(Refused, match=re.escape(key)):
            load_config(tmp_path / "my.toml", [f"--{name}=1"])


def test_there_are_thirty_wishes():
    assert len(ROWS) >= 30
