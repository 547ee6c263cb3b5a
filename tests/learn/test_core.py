"""The process reward CORE: what wrong responses earn, the sets of results, how it meets rescue and pass rates, and planted hacks."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from groups import group

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.process import ProcessConfig
from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.data.pass_rates import PassRates
from polaris.embedded.task import draw_problem, solution
from polaris.learn.core import Results, ResultSets
from polaris.learn.curate import curate
from polaris.learn.success_buffer import SuccessBuffer
from polaris.reward.core_results import marked_results

CORE = ProcessConfig(most=0.5)


def marked(given, *results):
    """The group, each response with the results that it marks, such as "abc"."""
    pairs = zip(given.rollouts, results, strict=True)
    rollouts = [replace(scored, verdict=replace(scored.verdict, marked=tuple(keys), marks=len(keys))) for scored, keys in pairs]
    return replace(given, rollouts=tuple(rollouts))


def rewards(groups):
    return [[scored.verdict.reward for scored in one.rollouts] for one in groups]


def sets_of(process=CORE, **results):
    sets = ResultSets(process)
    for name, keys in results.items():
        sets.add_counts(name, Counter(keys))
    return sets


def test_wrong_responses_earn_their_share_up_to_the_most_and_correct_ones_stay_at_one():
    given = marked(group("a", "+---0x"), "", "a", "abcd", "xy", "abcd", "abcd")
    (found,) = sets_of(a="abcd").credited([given])
    assert rewards([found]) == [[1, 1 / 4, 1 / 2, 0, 0, 0]]
    assert [scored.verdict.process for scored in found.rollouts] == [0, 1 / 4, 1 / 2, 0, 0, 0]
    assert [scored.verdict.kind for scored in found.rollouts] == [scored.verdict.kind for scored in given.rollouts]


def test_it_is_added_to_what_a_wrong_response_earns_otherwise():
    given = marked(group("a", "-"), "ab")
    shaped = replace(given.rollouts[0], verdict=replace(given.rollouts[0].verdict, reward=-0.2))
    (found,) = sets_of(a="abcd").credited([replace(given, rollouts=(shaped,))])
    assert rewards([found]) == [[pytest.approx(0.3)]]


def test_correct_responses_of_the_same_group_count_at_once_and_change_nothing_until_the_step_is_done():
    sets = ResultSets(CORE)
    given = marked(group("a", "+-"), "ab", "a")
    assert rewards(sets.credited([given])) == rewards(sets.credited([given])) == [[1, 0.5]]
    assert sets.size("a") == 0
    sets.add([given])
    assert dict(sets.of("a").counts) == {"a": 1, "b": 1}


def test_a_growing_denominator_lowers_the_share_and_a_frozen_one_does_not():
    for denominator, share in (("growing", 1 / 4), ("frozen", 1 / 2)):
        sets = sets_of(ProcessConfig(most=0.9, denominator=denominator), a="ab")
        sets.add([marked(group("a", "+"), "cd")])
        assert rewards(sets.credited([marked(group("a", "-"), "a")])) == [[share]]
        assert rewards(sets.credited([marked(group("a", "-"), "abcd")])) == [[0.9]]


def test_the_most_frequent_results_stay_whatever_the_order_of_the_responses():
    orders = [["abc", "ab", "bd"], ["bd", "abc", "ab"]]
    kept = []
    for order in orders:
        sets = ResultSets(ProcessConfig(most=0.5, stored=2))
        sets.add([marked(group("a", "+++"), *order)])
        kept.append(list(sets.of("a").counts.items()))
    assert kept == [[("b", 3), ("a", 2)]] * 2


def test_a_checkpoint_holds_the_sets_and_one_without_them_gives_none(tmp_path):
    sets = sets_of(ProcessConfig(most=0.5, denominator="frozen"), b="ab", a="c")
    sets.add([marked(group("b", "+"), "bd")])
    sets.save(tmp_path)
    again = ResultSets(ProcessConfig(most=0.5, denominator="frozen"))
    again.load(tmp_path)
    assert [(again.of(name), again.size(name)) for name in "ab"] == [(sets.of(name), sets.size(name)) for name in "ab"]
    given = [marked(group("b", "+-"), "ae", "ab")]
    assert rewards(again.credited(given)) == rewards(sets.credited(given))
    again.keep(["a", "z"])
    assert again.size("b") == 0
    (tmp_path / "results.parquet").unlink()
    again.load(tmp_path)
    assert again.size("a") == 0


def test_off_it_neither_counts_nor_earns():
    sets = ResultSets(ProcessConfig())
    sets.add([marked(group("a", "+"), "ab")])
    assert sets.size("a") == 0
    assert rewards(sets.credited([marked(group("a", "+-"), "ab", "ab")])) == [[1, 0]]


def settings(**algorithm):
    process = RewardConfig(process=CORE)
    return RunConfig(algorithm=AlgorithmConfig(**algorithm), trainer=TrainerConfig(prompts_per_step=2), reward=process)


def all_wrong():
    """Two groups in which nothing is solved: `c` with process credit of 1/2, 0, 1/4 and 0, and `d` without any."""
    given = [marked(group("c", "----"), "ab", "", "a", "z"), marked(group("d", "----"), "", "", "", "")]
    return sets_of(c="abcd").credited(given)


def test_an_all_wrong_group_that_differs_in_process_credit_teaches_without_a_stored_success():
    curated = curate(all_wrong(), settings(rescue=1), SuccessBuffer(1), step=1)
    assert curated.drawn_kinds.all_wrong.tolist() == [True, True]
    assert (curated.drawn_kinds.informative.tolist(), curated.informative, list(curated.trained)) == ([True, False], 1, [0])
    assert np.argsort(-curated.advantages[0]).tolist()[:2] == [0, 2]
    assert curated.rescued == []


def test_such_a_group_is_rescued_all_the_same_and_the_success_stands_above_all_credit():
    successes = SuccessBuffer(1)
    successes.add([group("c", "+", version=2)])
    curated = curate(all_wrong(), settings(rescue=1), successes, step=1)
    assert len(curated.rescued) == 1
    place = next(s for s, scored in enumerate(curated.groups[0].rollouts) if scored.stored)
    assert curated.advantages[0].argmax() == place


def test_substitution_copies_what_process_credit_made_informative():
    assert list(curate(all_wrong(), settings(substitution=True), SuccessBuffer(0), step=1).trained) == [0, 0]


def test_pass_rates_and_stored_successes_know_correct_answers_only():
    rates, successes = PassRates(), SuccessBuffer(4)
    rates.add_groups(all_wrong())
    successes.add(all_wrong())
    assert rates.counts == {"c": (0, 4), "d": (0, 4)}
    assert successes.of("c") == ()


SUMS = r"[=:](-?\d+)"


@pytest.fixture(scope="module")
def problems():
    """Problems of the embedded task with eight operations, and the sets of four right solutions."""
    rng = random.Random(0)
    drawn = [draw_problem(rng, 8) for _ in range(60)]
    return [(one, _results(one)) for one in drawn]


def _results(problem):
    results = Results()
    for seed in range(4):
        results = results.grown(Counter(_marks(problem, solution(problem, random.Random(seed)))), CORE.stored)
    return results


def slipped(problem, rng):
    """A wrong response: each total is off by 1 or 10 with probability 0.15, and the work goes on from the wrong one."""
    while True:
        total, work = problem.start, str(problem.start)
        for change in problem.changes:
            total += change + (rng.choice((-10, -1, 1, 10)) if rng.random() < 0.15 else 0)
            work += f"{change:+d}={total}"
        if total != int(problem.answer):
            return f"<think>{work}</think>\\boxed{{{total}}}"


def _marks(problem, response):
    return marked_results(response, problem.text, problem.answer, SUMS, CORE.marks).keys


HACKS = {
    "every number": lambda problem: "".join(f"={number}" for number in range(100)),
    "as many as count": lambda problem: "".join(f"={number}" for number in range(CORE.marks)),
    "half as many": lambda problem: "".join(f"={number}" for number in range(30, 30 + CORE.marks // 2)),
    "one right result again and again": lambda problem: f"={problem.start + sum(problem.changes[:3])}" * 500,
    "the question's numbers": lambda problem: "".join(f"={number}" for number in (problem.start, *problem.changes)),
    "the final answer": lambda problem: f"={problem.answer}" * 3,
}


@pytest.mark.parametrize("hack", HACKS)
def test_a_planted_hack_earns_less_than_honest_work_that_slips(problems, hack):
    rng, honest, planted = random.Random(1), [], []
    for problem, results in problems:
        honest.append(min(CORE.most, results.share(_marks(problem, slipped(problem, rng)), CORE)))
        planted.append(min(CORE.most, results.share(_marks(problem, f"<think>{HACKS[hack](problem)}</think>\\boxed{{0}}"), CORE)))
    assert np.mean(honest) > 0.2, "half of the totals before a slip are right"
    assert np.mean(planted) < 0.55 * np.mean(honest), (np.mean(planted), np.mean(honest))
    assert max(planted) <= CORE.most
