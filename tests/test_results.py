"""A result survives a kill, says when it is not ours, and holds as long as what it depends on."""

import json
import subprocess
import sys

import pytest

from polaris.errors import Refused
from polaris.results import Result, differences

WRITER = """
import sys
from pathlib import Path
from polaris.results import Result
for number in range(10**9):
    Result(Path(sys.argv[1])).write({"number": number, "text": "x" * 200_000})
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stages" / "result.json"


def test_a_kill_at_any_moment_leaves_a_whole_file(path):
    for lines in (1, 2, 5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
        process.communicate()
        assert len(Result(path).read()["text"]) == 200_000


def test_what_is_written_is_read_and_nothing_is_none(path):
    content = {"temperature": 0.1 + 0.2, "names": ["é", "\u2028"], "none": None, "nested": {"list": [1, 2.5]}}
    result = Result(path, {"seed": 1})
    assert result.read() is result.read_if_valid() is None
    Result(path).write(content)
    assert Result(path).read() == Result(path).read_existing() == content
    assert path.read_text(encoding="utf-8") == json.dumps(content, indent=2) + "\n"


def test_a_number_that_json_does_not_know_is_not_written(path):
    with pytest.raises(ValueError, match="nan"):
        Result(path).write({"accuracy": float("nan")})
    assert not path.exists()


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "\xff"])
def test_a_file_of_somebody_else_is_an_error_with_a_remedy(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Refused, match=r"result\.json .*; restore it, or delete it"):
        Result(path).read()
    with pytest.raises(Refused, match=r"result\.json .*; download it$"):
        Result(path, remedy="download it").read_if_valid()


def test_a_folder_in_its_place_is_an_error_with_a_remedy(path):
    path.mkdir(parents=True)
    with pytest.raises(Refused, match=r"result\.json cannot be read .*; restore it"):
        Result(path).read()


def test_a_missing_key_and_a_missing_file_are_errors_with_a_remedy(path):
    with pytest.raises(Refused, match=r"result\.json is gone; restore it, or give a number$"):
        Result(path, remedy="restore it, or give a number").read_existing("a")
    Result(path).write({"a": 1})
    assert Result(path).read("a") == {"a": 1}
    with pytest.raises(Refused, match="no JSON object with 'b'; restore it"):
        Result(path).read("a", "b")


@pytest.mark.parametrize("content", [{"settings": {"seed": 1, "edges": [1, 2], "new": 0}, "mean": 0.5}, {"seed": 1, "edges": [1, 2]}])
def test_it_holds_as_long_as_what_it_depends_on_in_the_settings_or_beside_them(path, content):
    result = Result(path, {"seed": 1, "edges": (1, 2)})
    result.write(content)
    result.refuse_changes(content)
    assert result.read() == result.read_if_valid() == content
    other = Result(path, {"seed": 2, "edges": (1, 2)})
    assert (other.read(), other.read_if_valid()) == (content, None)
    with pytest.raises(Refused, match=r"result\.json was measured with other settings \(seed: 1 -> 2\); give another --name, or move"):
        other.refuse_changes(content)


def test_settings_go_before_fields_of_the_same_name(path):
    """A temperature probe has both: the kind of diversity that was asked for, and how much of it was found."""
    content = {"diversity": 0.7, "settings": {"diversity": "words"}}
    assert Result(path, {"diversity": "words"}).changes(content) == ""
    assert Result(path, {"diversity": 0.7}).changes(content) == "diversity: 'words' -> 0.7"


def test_changes_are_named_by_their_leaves_and_a_field_that_is_missing_is_one(path):
    before = {"settings": {"rope": {"factor": 1.0, "base": 5}, "seed": 0}}
    result = Result(path, {"rope": {"factor": 2.0, "base": 5}, "seed": 0, "dtype": "float32"})
    assert result.changes(before) == "dtype: None -> 'float32'; rope.factor: 1.0 -> 2.0"


def test_a_result_that_would_not_hold_is_not_written(path):
    with pytest.raises(AssertionError, match=r"result\.json"):
        Result(path, {"seed": 1}).write({"settings": {"seed": 2}})
    assert not path.exists()


def test_differences_of_two_trees_go_both_ways():
    before, after = {"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}], "old": 1}, {"a": {"b": 1}, "list": [{"c": 1}, {"c": 3}], "new": 2}
    assert differences(before, after) == ["list.1.c: 2 -> 3", "new: None -> 2", "old: 1 -> None"]


@pytest.mark.parametrize("settings", ["null", "[1]", '"x"'])
def test_settings_that_are_no_object_are_refused_with_the_remedy(tmp_path, settings):
    path = tmp_path / "result.json"
    path.write_text(f'{{"settings": {settings}, "temperature": 0.8}}')
    with pytest.raises(Refused, match=r"result\.json is no JSON object of a phase; restore it"):
        Result(path, {"seed": 1}).read("temperature")
