"""Result files survive a kill and say when they are not ours."""

import subprocess
import sys
from dataclasses import replace

import pytest

from polaris.recipe.results import digest, read_result, write_result
from polaris.types import Prompt

WRITER = """
import sys
from pathlib import Path
from polaris.recipe.results import write_result
for number in range(10**9):
    write_result(Path(sys.argv[1]), {"number": number, "text": "x" * 200_000})
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "stages" / "result.json"
    for lines in (1, 2, 5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
        process.communicate()
        assert len(read_result(path)["text"]) == 200_000


def test_what_is_written_is_read_and_nothing_is_none(tmp_path):
    result = {"temperature": 0.1 + 0.2, "names": ["é", "\u2028"], "none": None, "nested": {"list": [1, 2.5]}}
    assert read_result(tmp_path / "none.json") is None
    write_result(tmp_path / "result.json", result)
    assert read_result(tmp_path / "result.json") == result


def test_a_number_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        write_result(tmp_path / "result.json", {"accuracy": float("nan")})
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "\xff"])
def test_a_file_of_somebody_else_is_an_error_with_a_remedy(tmp_path, text):
    (tmp_path / "result.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="delete it"):
        read_result(tmp_path / "result.json")


def test_a_missing_key_is_an_error_with_a_remedy(tmp_path):
    write_result(tmp_path / "result.json", {"a": 1})
    assert read_result(tmp_path / "result.json", "a") == {"a": 1}
    with pytest.raises(ValueError, match="no JSON object with 'b'; restore it"):
        read_result(tmp_path / "result.json", "a", "b")


def test_the_digest_changes_with_whatever_a_response_or_verdict_depends_on():
    prompt = Prompt(id="a", text="1+1", tokens=(1, 2), ground_truth="2", source="x:1")
    other = replace(prompt, id="b")
    seen = [[prompt], [other], [prompt, other], [other, prompt], [replace(prompt, tokens=(1, 3))], [replace(prompt, ground_truth=2)]]
    assert len({digest(prompts) for prompts in seen}) == len(seen)
    assert digest([replace(prompt, source="y:7")]) == digest([prompt])
