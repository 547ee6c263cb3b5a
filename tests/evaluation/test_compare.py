"""Two results compared: what is paired, what is refused, and what is said."""

import json

import programs
import pytest

from polaris.evaluation.compare import compare, lines
from polaris.files import write_atomically


def write(folder, correct, *, samples=8, sha="1", factor="1", name="set", **identity):
    """A result as `polaris eval` writes it, as far as a comparison reads it."""
    result = {
        "grader": "g",
        "settings": {},
        "thinking": {"required": False},
        "identity": {"temperature": 1.0, "sets": {name: {"sha256": sha}}, "yarn": {}, "model": {"weights": str(folder)}, **identity},
        "results": {factor: {name: {"samples": samples, "correct": dict(correct)}}},
    }
    write_atomically(folder / "result.json", json.dumps(result).encode())
    return folder


def counts(*values):
    return {f"p{number}": value for number, value in enumerate(values)}


def test_problems_are_paired_by_id_whatever_their_order_and_number_of_samples(tmp_path):
    first = write(tmp_path / "a", counts(8, 4, 0, 2))
    second = write(tmp_path / "b", dict(reversed(counts(16, 8, 0, 6).items())), samples=16)
    (found,) = compare(first, second / "result.json").sets
    assert found.samples == (8, 16)
    assert (found.first, found.second) == (14 / 32, 30 / 64)
    assert found.difference.mean == pytest.approx(1 / 32)
    assert found.difference.p > 0.05


def test_what_differs_in_settings_is_said_and_models_may_differ(tmp_path):
    first = write(tmp_path / "a", counts(8, 0, 0), temperature=1.4, engine="vllm")
    second = write(tmp_path / "b", counts(8, 8, 1), temperature=0.6, engine="vllm")
    assert compare(first, second).settings == ["temperature: 1.4 -> 0.6"]
    text = "\n".join(lines(compare(first, second)))
    assert "settings differ: temperature: 1.4 -> 0.6" in text
    assert text.endswith(" (other temperature)")
    assert "3 problems tell differences of" in text


def test_another_form_of_the_answer_is_said_also_where_an_older_result_names_none(tmp_path):
    older, boxed = write(tmp_path / "a", counts(8, 0, 0)), write(tmp_path / "b", counts(8, 8, 1), answer_form="boxed")
    other = write(tmp_path / "c", counts(8, 8, 1), answer_form="whole")
    assert compare(older, boxed).settings == []
    assert compare(older, other).settings == ["answer_form: 'boxed' -> 'whole'"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"sha": "2"}, "texts, answers, ids or system prompt"),
        ({"sha": "2", "prompt_suffix": "Think."}, "prompt_suffix: None -> 'Think.'"),
        ({"name": "another"}, "nothing to compare"),
        ({"factor": "1.5"}, "nothing to compare"),
    ],
)
def test_other_problems_or_prompts_are_refused(tmp_path, other, said):
    first, second = write(tmp_path / "a", counts(1, 2)), write(tmp_path / "b", counts(1, 2), **other)
    with pytest.raises(ValueError, match=said):
        compare(first, second)


def test_a_set_of_other_size_is_refused_with_both_sizes(tmp_path):
    first, second = write(tmp_path / "a", counts(1, 2)), write(tmp_path / "b", counts(1, 2, 3), sha="2")
    with pytest.raises(ValueError, match="2 and 3 problems"):
        compare(first, second)


def test_a_run_stands_for_its_last_final_evaluation_and_one_without_is_refused(tmp_path):
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    write_atomically(run / "config.json", b"{}")
    write(run / "stages" / "evaluation" / "step-000010", counts(0, 0))
    write(run / "stages" / "evaluation" / "step-000020", counts(8, 7))
    (found,) = compare(write(tmp_path / "a", counts(0, 1)), run).sets
    assert found.second == 15 / 16
    (tmp_path / "empty" / "stages").mkdir(parents=True)
    write_atomically(tmp_path / "empty" / "config.json", b"{}")
    with pytest.raises(ValueError, match="without a final evaluation"):
        compare(tmp_path / "a", tmp_path / "empty")


def test_results_of_older_versions_and_the_same_one_twice_are_refused(tmp_path):
    first = write(tmp_path / "a", counts(0, 1))
    with pytest.raises(ValueError, match="are the same result"):
        compare(first, first / "result.json")
    second = write(tmp_path / "b", counts(0, 1))
    result = json.loads((second / "result.json").read_text())
    del result["results"]["1"]["set"]["correct"]
    write_atomically(second / "result.json", json.dumps(result).encode())
    with pytest.raises(ValueError, match="the same `polaris eval` writes it again, and draws nothing"):
        compare(first, second)
    with pytest.raises(ValueError, match="is not there"):
        compare(first, tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"results": {"1": {"set": {"samples": 8, "correct": counts(0, float("nan"))}}}},
        {"results": {"1": {"set": {"samples": 8, "correct": counts(0, 9)}}}},
        {"results": {"1": {"set": {"samples": 0, "correct": counts(0, 0)}}}},
        {"results": {"1": {"set": {"samples": 8, "correct": counts(0, "1")}}}},
        {"results": {"1": {"set": None}}},
        {"results": []},
        {"identity": None},
        {"identity": {"sets": None}},
        {"identity": {"sets": {"set": {}}, "yarn": None}},
    ],
)
def test_a_result_that_counts_something_else_is_refused(tmp_path, change):
    first, second = (write(tmp_path / name, counts(0, 1)) for name in "ab")
    damaged = json.loads((second / "result.json").read_text()) | change
    write_atomically(second / "result.json", json.dumps(damaged).encode())
    with pytest.raises(ValueError, match="does not say of each problem"):
        compare(first, second)


def test_a_problem_that_only_one_of_them_has_is_refused(tmp_path):
    first, second = write(tmp_path / "a", counts(0, 1)), write(tmp_path / "b", counts(0, 1, 1))
    with pytest.raises(ValueError, match="2 and 3 problems"):
        compare(first, second)


def test_a_p_too_small_to_mean_anything_is_only_called_small(tmp_path):
    """Of 150 problems B solves two more of eight, of every fifth one less: t = 1.4 / 1.204 * sqrt(150) = 14.2."""
    first = write(tmp_path / "a", counts(*[4] * 150))
    second = write(tmp_path / "b", counts(*[6, 6, 6, 6, 3] * 30))
    text = "\n".join(lines(compare(first, second)))
    assert "| < 0.001 |" in text
    assert text.endswith("set: B is better beyond chance (p < 1e-6)")


def test_the_command(tmp_path):
    first, second = write(tmp_path / "a", counts(*[0, 4] * 10)), write(tmp_path / "b", counts(*[2, 6] * 9, 8, 8))
    said = programs.run("-m", "polaris.cli", "eval", "compare", first, second, check=True).stdout
    assert "| set | 1 | 20 | 8, 8 | 25.0% |" in said
    assert "B is better beyond chance" in said
