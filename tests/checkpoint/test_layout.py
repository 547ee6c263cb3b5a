import json
import os
from pathlib import Path

import pytest

from polaris.checkpoint import layout


def make(checkpoints, step, content="weights"):
    temporary = layout.temporary_folder(checkpoints, step)
    temporary.mkdir(parents=True)
    (temporary / "data.bin").write_text(content)
    layout.commit(temporary, layout.step_folder(checkpoints, step))


def test_only_committed_folders_count(tmp_path):
    for step in (2, 10, 4):
        make(tmp_path, step)
    layout.temporary_folder(tmp_path, 12).mkdir()
    layout.step_folder(tmp_path, 11).mkdir()
    assert layout.complete_steps(tmp_path) == [2, 4, 10]


@pytest.mark.parametrize("damage", ["truncate", "remove", "marker", "torn marker"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    make(tmp_path, 1)
    make(tmp_path, 2)
    folder = layout.step_folder(tmp_path, 2)
    if damage == "truncate":
        (folder / "data.bin").write_text("w")
    elif damage == "remove":
        (folder / "data.bin").unlink()
    elif damage == "marker":
        (folder / layout.COMMIT).unlink()
    else:
        (folder / layout.COMMIT).write_text((folder / layout.COMMIT).read_text()[:9])
    assert layout.complete_steps(tmp_path) == [1]


def test_a_repeated_step_replaces_the_old_one(tmp_path):
    make(tmp_path, 1, "old")
    make(tmp_path, 1, "newer")
    assert (layout.step_folder(tmp_path, 1) / "data.bin").read_text() == "newer"
    assert json.loads((layout.step_folder(tmp_path, 1) / layout.COMMIT).read_text())["files"] == {"data.bin": 5}


def test_everything_is_on_the_disk_before_the_name_that_makes_it_a_checkpoint(tmp_path, monkeypatch):
    """Names that `fsync` was asked for, in order; the folder gets its final name after all but its parent's."""
    events, fsync, rename = [], os.fsync, Path.rename

    def name_of(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(name_of(descriptor)) or fsync(descriptor))
    monkeypatch.setattr(Path, "rename", lambda path, target: events.append(f"rename to {target.name}") or rename(path, target))
    temporary = layout.temporary_folder(tmp_path, 3)
    (temporary / "part").mkdir(parents=True)
    for name in ("a.bin", "part/b.bin"):
        (temporary / name).write_text(name)
    layout.commit(temporary, layout.step_folder(tmp_path, 3))
    assert events == ["a.bin", "b.bin", layout.COMMIT, "step-000003.writing", "rename to step-000003", tmp_path.name]
    assert layout.is_complete(layout.step_folder(tmp_path, 3))


def test_clean_keeps_the_newest_and_removes_leftovers(tmp_path):
    for step in range(1, 6):
        make(tmp_path, step)
    layout.temporary_folder(tmp_path, 9).mkdir()
    layout.remove_old(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]
