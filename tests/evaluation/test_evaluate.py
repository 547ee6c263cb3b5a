"""The command on the embedded model: numbers, resumption, refusal, ranks."""

import importlib.util
import json
import os
import signal
from statistics import fmean

import programs
import pytest
from evaluations import lines, result, run, run_by_torchrun, run_on_two_ranks, samples, start, wait_for_lines

from polaris.evaluation.compare import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first call builds the embedded model


def test_numbers_are_those_of_polaris_grade_and_hold_what_repeats_them(reference):
    found = result(reference)
    assert found["last_call"]["samples"] == len(samples(reference)) == 2 * (24 + 16) * 8
    assert found["results"]["1"]["first"]["avg"]["mean"] > 0.3, "the embedded model solves a good part"
    for factor in ("1", "1.5"):
        responses = reference / f"rope-{factor}" / "samples-rank0.jsonl"
        graded = programs.run("-m", "polaris.cli", "grade", responses, "--id", "id", check=True).stdout
        sets = found["results"][factor]
        problems = [numbers for numbers in sets.values() for _ in range(numbers["problems"])]
        assert f"avg@8      {fmean(n['avg']['mean'] for n in problems):.2%}" in graded
        assert f"pass@8     {fmean(n['pass']['8']['mean'] for n in problems):.2%}" in graded
        for numbers in sets.values():
            assert numbers["pass"]["1"]["mean"] == pytest.approx(numbers["avg"]["mean"])
            assert numbers["maj"]["1"]["mean"] == pytest.approx(numbers["avg"]["mean"])
            assert numbers["avg"]["low"] <= numbers["avg"]["mean"] <= numbers["avg"]["high"]
            assert sum(bucket["responses"] for bucket in numbers["buckets"]) == numbers["problems"] * 8
    assert found["thinking"]["required"], "the embedded model opens thinking by itself"
    assert found["identity"]["model"]["weights"]
    assert found["identity"]["sets"].keys() == {"first", "second"}
    assert found["versions"]["torch"]
    assert "--temperature 1" in found["command"]
    overlap = found["results"]["1"]["second"]["overlap"]
    assert (len(overlap["problems"]), overlap["without"], overlap["within"]) == (16, None, found["results"]["1"]["second"]["avg"])
    page = (reference / "result.html").read_text(encoding="utf-8")
    assert all(f'<a href="#1.5/first/{problem}">' in page for problem in found["results"]["1.5"]["first"]["correct"])
    text = (reference / "result.md").read_text(encoding="utf-8")
    assert "| second | 1 | 16 of 16 |" in text
    assert found["identity"]["model"]["weights"] in text
    assert "| first | 1.5 | 24 | 8 |" in text


def test_yarn_changes_the_samples_but_not_their_seeds(reference):
    found = samples(reference)
    pairs = [(value, found[("rope-1.5", *key[1:])]) for key, value in found.items() if key[0] == "rope-1"]
    assert all(plain[2] == scaled[2] for plain, scaled in pairs)
    assert sum(plain[0] != scaled[0] for plain, scaled in pairs) > len(pairs) // 10


def test_killed_and_resumed_it_equals_the_uninterrupted_one_and_draws_nothing_twice(options, reference, tmp_path):
    kept = []
    for count in (60, 400):
        process = start(tmp_path / "run", *options)
        wait_for_lines(tmp_path / "run", count, process)
        process.kill()
        process.communicate()
        kept = lines(tmp_path / "run")
    with (tmp_path / "run" / "rope-1" / "samples-rank0.jsonl").open("ab") as file:
        file.write(b'{"set": "first", "prob')
    run(tmp_path / "run", *options)
    assert 400 <= len(kept) < 640
    assert result(tmp_path / "run")["last_call"]["samples"] == 640 - len(kept)
    assert samples(tmp_path / "run") == samples(reference)
    assert result(tmp_path / "run")["results"] == result(reference)["results"]
    run(tmp_path / "run", *options)
    assert result(tmp_path / "run")["last_call"]["samples"] == 0


def test_more_sets_factors_and_samples_extend_an_evaluation(options, problems, reference, tmp_path):
    run(tmp_path / "run", *options, "--suite", str(problems / "first.jsonl"), "-n", "4", "--yarn", "1")
    assert result(tmp_path / "run")["last_call"]["samples"] == 24 * 4
    run(tmp_path / "run", *options)
    assert result(tmp_path / "run")["last_call"]["samples"] == 640 - 24 * 4
    assert samples(tmp_path / "run") == samples(reference)
    assert result(tmp_path / "run")["results"] == result(reference)["results"]
    assert [one.difference.mean for one in compare(tmp_path / "run", reference).sets] == [0.0] * 4


def test_a_stop_request_ends_with_status_143_and_is_resumed(options, reference, tmp_path):
    process = start(tmp_path / "run", *options)
    wait_for_lines(tmp_path / "run", 20, process)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "the same command goes on" in out
    assert not (tmp_path / "run" / "result.json").exists()
    run(tmp_path / "run", *options)
    assert samples(tmp_path / "run") == samples(reference)


def test_other_settings_are_refused_by_name(options, reference):
    before = (reference / "result.json").read_bytes()
    changed = ("--temperature", "0.9", "--seed", "3", "-n", "4", "--prompt-suffix", "Think.", "--dtype", "bfloat16", "--require-thinking")
    refusal = run(reference, *options, *changed, status=2)
    for named in (
        "temperature: 1.0 -> 0.9",
        "seed: 0 -> 3",
        "sets.first.sha256",
        "prompt_suffix: '' -> 'Think.'",
        "dtype: 'float32' -> 'bfloat16'",
        "require_thinking: 'auto' -> True",
    ):
        assert named in refusal
    assert "top_k" not in refusal
    assert (reference / "result.json").read_bytes() == before


def test_another_problem_set_under_the_same_name_is_refused(options, problems, reference, tmp_path):
    for path in problems.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows[0]["answer"] = "12345"
        (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "sets.second.sha256" in run(reference, *options, "--suite", str(tmp_path), status=2)


@pytest.mark.distributed
def test_two_ranks_draw_the_samples_of_one_and_one_rank_resumes_two(options, reference, tmp_path):
    run_on_two_ranks(tmp_path / "two", *options)
    assert samples(tmp_path / "two") == samples(reference)
    assert result(tmp_path / "two")["results"] == result(reference)["results"]
    parts = sorted((tmp_path / "two" / "rope-1").glob("samples-rank*.jsonl"))
    assert [len(part.read_bytes().splitlines()) for part in parts] == [160, 160]
    parts[1].unlink()
    run(tmp_path / "two", *options)
    assert result(tmp_path / "two")["last_call"]["samples"] == 160
    assert samples(tmp_path / "two") == samples(reference)


@pytest.mark.distributed
@pytest.mark.usefixtures("as_declared")
def test_a_refusal_ends_every_rank(options, reference):
    assert "seed: 0 -> 3" in run_by_torchrun(reference, *options, "--seed", "3", status=2)


@pytest.mark.vllm
@pytest.mark.distributed
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_tensor_parallel_engine_draws_every_sample_once(options, reference, tmp_path):
    changed = ("--engine", "vllm", "--tensor-parallel", "2", "--yarn", "1", "--kv-cache-mib", "64")
    run_on_two_ranks(tmp_path / "run", *options, *changed)
    assert [path.name for path in (tmp_path / "run" / "rope-1").iterdir()] == ["samples-rank0.jsonl"]
    assert samples(tmp_path / "run").keys() == {key for key in samples(reference) if key[0] == "rope-1"}
    for name in ("first", "second"):
        ours, others = (result(output)["results"]["1"][name]["avg"]["mean"] for output in (tmp_path / "run", reference))
        assert abs(ours - others) < 0.1
