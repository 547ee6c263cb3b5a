"""The results that correct responses of a difficulty pass mark: added up over rounds, kept on disk, the first sets of training."""

from groups import group

from polaris.config.process import ProcessConfig
from polaris.data.pass_rates import read_lengths, read_passes
from polaris.learn.core import ResultSets
from polaris.recipe.measured import Journal, Measured, read_results, save_measured
from polaris.types import Verdict


def row(name, passed, **results):
    return Measured(id=name, passed=passed, count=4, lost=0, tokens=40, clipped=0, results=results)


def test_results_of_two_rounds_are_added_up_and_survive_the_journal_and_the_file(tmp_path):
    journal = Journal(tmp_path / "pass.partial.jsonl", {"seed": 1}, write=True)
    journal.append([row("a", 2, x=2, y=1) + row("a", 1, y=1, z=1), row("b", 0)], 1.0)
    rows = list(Journal(tmp_path / "pass.partial.jsonl", {"seed": 1}, write=False).rows.values())
    save_measured(tmp_path / "difficulty.parquet", rows, drawn=True)
    assert read_results(tmp_path / "difficulty.parquet") == {"a": {"x": 2, "y": 2, "z": 1}, "b": {}}
    assert read_passes(tmp_path / "difficulty.parquet") == {"a": (3, 8), "b": (0, 4)}
    assert read_lengths(tmp_path / "difficulty.parquet") == {"a": 10.0, "b": 10.0}
    save_measured(tmp_path / "published.parquet", rows, drawn=False)
    assert read_lengths(tmp_path / "published.parquet") == {}


def test_a_pass_without_a_process_reward_has_none(tmp_path):
    save_measured(tmp_path / "difficulty.parquet", [row("a", 2)], drawn=True)
    assert read_results(tmp_path / "difficulty.parquet") == {}
    assert read_results(tmp_path / "none.parquet") == {}


def test_the_sets_of_the_pass_are_what_a_frozen_denominator_counts():
    sets = ResultSets(ProcessConfig(most=0.5, denominator="frozen"))
    sets.add_counts("a", {"x": 2, "y": 1, "z": 1})
    given = group("a", "+")
    (scored,) = given.rollouts
    assert scored.verdict == Verdict("correct", answer="1", reward=1.0)
    sets.add([given])
    assert sets.size("a") == 3
