import json

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


def test_clean_keeps_the_newest_and_removes_leftovers(tmp_path):
    for step in range(1, 6):
        make(tmp_path, step)
    layout.temporary_folder(tmp_path, 9).mkdir()
    layout.clean(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]
