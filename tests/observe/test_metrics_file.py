import json

import pytest

from polaris.observe.metrics import MetricsFile, deterministic, read_records


def test_numbers_that_json_lacks_become_null_and_step_comes_first(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).append({"a": float("nan"), "b": float("-inf"), "c": 0.1, "step": 3})
    line = path.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 3, "a": None, "b": None, "c": 0.1}
    assert line.startswith('{"step": 3')


def test_resume_drops_later_steps_and_a_torn_line_and_keeps_the_bytes_of_the_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(5):
        file.append({"step": step, "x": step / 3})
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:3])
    with path.open("ab") as raw:
        raw.write(b'{"step": 5, "x": 1.')
    assert [record["step"] for record in read_records(path)] == [0, 1, 2, 3, 4]
    file.truncate_after(2)
    assert path.read_bytes() == kept
    file.append({"step": 3, "x": 1.0})
    assert [record["step"] for record in read_records(path)] == [0, 1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_damage_within_the_file_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        read_records(path)


def test_a_missing_file_has_no_records(tmp_path):
    MetricsFile(tmp_path / "metrics.jsonl").truncate_after(3)
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_clock_and_machine_are_left_out_of_the_deterministic_part():
    record = {"step": 1, "seconds/step": 2.0, "throughput/x": 1.0, "memory/peak_gib": 3.0, "reward/mean": 0.5}
    assert deterministic(record) == {"step": 1, "reward/mean": 0.5}
