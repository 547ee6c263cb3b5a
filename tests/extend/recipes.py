"""The recipes of docs/extend.md: their files, as a reader would write them, and a run of them."""

import json
import re
import subprocess
from pathlib import Path

import programs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extend.md"
_FILE = re.compile(r"^```\w+ (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def write_recipe(heading: str, folder: Path) -> Path:
    """Write the files of the section `## heading` (blocks that begin with "```python mine.py") into a folder; return the folder."""
    section = next(part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith(f"{heading}\n"))
    files = _FILE.findall(section)
    assert any(name == "my.toml" for name, _ in files)
    for name, text in files:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`polaris train my.toml` in the folder, with one thread: two are slow beside other tests."""
    return polaris("-m", "polaris.cli", "train", "my.toml", "--trainer.cpu_threads=1", *overrides, folder=folder)


def polaris(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python *command` in the folder; its stdout has its stderr too."""
    return programs.run(*command, folder=folder, together=True)


def records(folder: Path) -> list[dict]:
    """The records of the folder's one run."""
    (file,) = folder.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
