"""Rows come out of every format, and every broken set says which file and line, and what to do."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polaris.data.named_sets import NAMED_SETS, spelled
from polaris.data.reading import Reading
from polaris.data.sources import read_rows

ROWS = [{"problem": f"{i} + 1?", "answer": i + 1} for i in range(3)]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_format_yields_the_same_rows(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    write(tmp_path / "a.json", json.dumps(ROWS))
    write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n")
    for name in ("a.parquet", "a.json", "a.jsonl"):
        shutil.copy(tmp_path / name, tmp_path / name.upper())
    for name in ("a.parquet", "a.json", "a.jsonl", "A.PARQUET", "A.JSON", "A.JSONL"):
        path = str(tmp_path / name)
        assert list(read_rows(path, "train")) == [(f"{path}:{i}", row) for i, row in enumerate(ROWS, start=1)]


def test_rows_of_jsonl_count_as_the_lines_of_an_editor(tmp_path):
    path = write(tmp_path / "a.jsonl", '\ufeff\n{"problem": "a\u2028b"}\r\n\r\n  \n{"problem": "b"}')
    assert list(read_rows(path, "train")) == [(f"{path}:2", {"problem": "a\u2028b"}), (f"{path}:5", {"problem": "b"})]


def test_folder_is_read_by_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", "\n".join(map(json.dumps, ROWS)))
    path = str(tmp_path / "set")
    assert [row for _, row in read_rows(path, "train")] == ROWS
    with pytest.raises(ValueError, match=r"split 'validation'.*check name, split"):
        list(read_rows(path, "validation"))


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere.JSONL", "/no/such/folder", "./data", "a/b/c"])
def test_absent_local_file_is_not_looked_up_on_the_hub(name):
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        list(read_rows(name, "train"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.json", '[{"problem": "a"},\n{"problem": }]', r"bad\.json, line 2: not valid JSON"),
        ("bad.jsonl", '{"problem": "a"}\n\n{"problem"\n', r"bad\.jsonl, line 3: not valid JSON"),
        ("latex.jsonl", '{"problem": "a", "answer": "\\sqrt{2}"}', r'a backslash is written twice: "\\\\frac"; correct that line'),
        ("object.json", '{"problem": "a"}', r"object\.json holds a dict, not a list"),
        ("number.json", '[{"problem": "a"}, 3]', r"number\.json:2 is a int, not an object"),
        ("empty.json", "[]", r"empty\.json has no rows"),
        ("empty.jsonl", "", r"empty\.jsonl has no rows"),
        ("table.csv", "a,b", r"table\.csv has an unknown format"),
        ("bad.parquet", "PAR1 not really", r"bad\.parquet is not a readable parquet file"),
    ],
)
def test_broken_set_names_file_and_place(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        list(read_rows(write(tmp_path / name, text), "train"))


def test_truncated_parquet_and_wrong_encoding_are_named(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    (tmp_path / "latin.json").write_bytes('[{"problem": "\u00e9"}]'.encode("latin-1"))
    for name, message in (("cut.parquet", "readable parquet"), ("latin.json", "UTF-8")):
        with pytest.raises(ValueError, match=message) as caught:
            list(read_rows(str(tmp_path / name), "train"))
        assert name in str(caught.value)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_named_set_is_read_by_its_name_from_its_own_split(monkeypatch, tmp_path, name):
    asked = []

    def load_dataset(path, subset, *, split, revision):
        asked.append((path, subset, split, revision))
        return [{"problem": "1+1?", "answer": "2"}]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert [(place, row["answer"]) for place, row in read_rows(name, "another split")] == [(f"{name}:1", "2")]
    assert asked == [(NAMED_SETS[name].hub, NAMED_SETS[name].subset, NAMED_SETS[name].split, None)]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("AIME26", "aime26"),
        ("AIME 2026", "aime26"),
        ("HMMT25", "hmmt25"),
        ("BeyondAIME", "beyondaime"),
        ("MATH-500", "math500"),
        ("GPQA-diamond", "gpqa-diamond"),
        ("gpqa_diamond", "gpqa-diamond"),
        ("aime2024", "aime24"),
        ("math5000", "math5000"),
    ],
)
def test_a_known_set_is_known_however_papers_spell_it(monkeypatch, tmp_path, given, name):
    monkeypatch.chdir(tmp_path)
    assert spelled(given) == name
    (tmp_path / given).mkdir()
    assert spelled(given) == given


@pytest.mark.parametrize(("name", "gated"), [("aime26", False), ("gpqa-diamond", True)])
def test_without_the_hub_a_named_set_says_which_file_works(monkeypatch, tmp_path, name, gated):
    def load_dataset(*_, **__):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(ValueError, match=f"write {name}.parquet, .json or .jsonl with the columns .*, and give the file") as refused:
        list(read_rows(name, "test"))
    assert ("accept the terms" in str(refused.value)) == gated
    assert "no route to the hub" in str(refused.value)


def test_a_name_near_that_of_a_known_set_is_answered_with_it_and_an_evaluation_names_no_subset(monkeypatch, tmp_path):
    def load_dataset(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    def said(name, key):
        with pytest.raises(ValueError, match="cannot load it") as refused:
            list(read_rows(name, "test", Reading(key=key)))
        return str(refused.value)

    assert "did you mean 'math500'? If not, check name, split, revision and network" in said("math5000", "final")
    assert "; check name, split, revision and" in said("me/math5000", "final")
    assert "; check name, split, data.subset, revision and" in said("gsm8k", "data")


@pytest.mark.parametrize(("absolute", "said"), [(False, True), (True, False)])
def test_a_relative_path_that_is_missing_is_told_where_paths_begin(tmp_path, monkeypatch, absolute, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="does not exist") as refused:
        list(read_rows(str(tmp_path / "none.jsonl") if absolute else "none.jsonl", "train"))
    assert ("paths begin in the folder where the command is typed" in str(refused.value)) == said
