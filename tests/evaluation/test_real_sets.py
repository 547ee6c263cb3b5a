"""The five real sets through the command; skipped where the data is not beside the checkout."""

from pathlib import Path

import pytest
from evaluations import lines, result, run, samples, start, wait_for_lines

from polaris.data.problems import read_problems
from polaris.data.prompts import encode_texts
from polaris.embedded import resolve
from polaris.evaluation.settings import PAPER

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval"
PROBLEMS = {"aime24": 30, "aime25": 30, "amc23": 83, "minerva": 272, "olympiad": 675}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no evaluation sets at {DATA}")


def test_the_sets_carry_the_papers_instruction_already():
    for name in PROBLEMS:
        assert all(problem.text.endswith(PAPER.prompt_suffix) for problem in read_problems(str(DATA / f"{name}.parquet"), "test"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_real_sets_load_generate_grade_report_and_resume_after_a_kill(tmp_path):
    options = (
        "--model",
        "embedded:model",
        "--engine",
        "transformers",
        "--dtype",
        "float32",
        "--workers",
        "1",
        "-n",
        "1",
        "--max-tokens",
        "4",
        "--max-positions",
        "8192",
    )
    options += ("--suite", ",".join(PROBLEMS), "--data-folder", str(DATA), "--concurrent", "32", "--buckets", "quartiles")
    process = start(tmp_path / "run", *options)
    wait_for_lines(tmp_path / "run", 400, process)
    process.kill()
    process.communicate()
    kept = lines(tmp_path / "run")
    assert 400 <= len(kept) < 1090
    run(tmp_path / "run", *options)
    assert result(tmp_path / "run")["last_call"]["samples"] == 1090 - len(kept)
    assert len(samples(tmp_path / "run")) == 1090
    assert lines(tmp_path / "run")[: len(kept)] == kept
    found = result(tmp_path / "run")
    assert {name: numbers["problems"] for name, numbers in found["results"]["1"].items()} == PROBLEMS
    assert all(numbers["avg"]["mean"] < 0.05 for numbers in found["results"]["1"].values())


def test_the_embedded_tokenizer_spells_every_real_problem():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded:model"))
    for name in PROBLEMS:
        problems = list(read_problems(str(DATA / f"{name}.parquet"), "test"))
        for problem, (_, tokens) in zip(problems, encode_texts(problems, tokenizer, "", {}), strict=True):
            assert problem.text in tokenizer.decode(tokens)
