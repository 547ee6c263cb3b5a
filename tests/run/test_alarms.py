"""What should worry is said once: shares of responses above a half, and what has changed since the run's first steps."""

import re

import pytest

from polaris.config.load import describe_fields
from polaris.observe.alarms import warnings
from polaris.observe.console import Console
from polaris.reward.no_answer import CUT_OFF, metrics
from polaris.run.alarms import Alarms


def record(step, missing, cut, prefix=("reward/no_answer", "response/clip_ratio")):
    counts = {CUT_OFF: cut, "no \\boxed{}": missing - cut}
    return {"step": step, **metrics(counts, 100, prefix[0]), prefix[1]: cut / 100, prefix[1].replace("clip_ratio", "limit"): 4096}


def said(capsys, alarms, *records):
    for one in records:
        alarms.look(one)
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def alarms():
    return Alarms(Console(True, 9))


def test_the_first_shares_are_said_and_small_ones_no_more(alarms, capsys):
    assert said(capsys, alarms, record(1, 20, 5), record(2, 30, 10)) == [
        "step 1: 20.0% of the responses have no answer (5.0% cut off at the token limit, 15.0% no \\boxed{})",
        "step 1: 5.0% of the responses are cut off at 4096 tokens",
    ]


def test_nothing_is_said_of_none(alarms, capsys):
    assert said(capsys, alarms, record(1, 0, 0)) == []


def test_a_share_that_rises_is_said_once_and_again_after_it_fell(alarms, capsys):
    steps = [record(1, 1, 1), record(2, 50, 50), record(3, 98, 97), record(4, 99, 98), record(5, 2, 1), record(6, 51, 0)]
    third, cut, sixth = said(capsys, alarms, *steps)[2:]
    assert third.startswith("warning: step 3: 98.0% of the responses have no answer (97.0% cut off")
    assert cut.startswith("warning: step 3: 97.0% of the responses are cut off at 4096 tokens; allow longer ones (rollout.max")
    assert sixth.startswith("warning: step 6: 51.0% of the responses have no answer (51.0% no \\boxed{})")


def test_evaluations_are_watched_apart(alarms, capsys):
    assert said(capsys, alarms, record(0, 60, 0, ("eval/no_answer", "eval/response/clip_ratio")), record(1, 0, 0)) == [
        "warning: step 0: held out: 60.0% of the responses have no answer (60.0% no \\boxed{})"
    ]


def test_marks_that_kill_their_process_are_said(alarms, capsys):
    some, most = said(capsys, alarms, *({**record(step, 0, 0), "reward/process_lost": share} for step, share in ((1, 0.01), (2, 1.0))))
    assert some.startswith("step 1: at 1.0% of the responses the process that finds marked results was killed")
    assert most.startswith("warning: step 2: at 100.0%")
    assert "mend reward.process.marker" in most


def steps(count, **values):
    """Records of a healthy run of 8 prompts a step, but for `values`: each a number, or a function of the step."""
    usual = {
        "stage": 0,
        "rollout/temperature": 1.0,
        "reward/accuracy": 0.4,
        "groups/drawn": 8,
        "groups/informative": 5,
        "groups/all_right": 1,
        "groups/all_wrong": 2,
        "policy/entropy": 0.5,
        "mismatch/logprob_gap_mean": 0.02,
        "mismatch/kl_k3": 0.001,
        "optimizer/grad_norm": 1.0,
        "reward/math/mean": 0.4,
        "reward/math/std": 0.5,
        "reward/format/mean": 0.5,
        "reward/format/std": 0.4,
    }
    given = usual | {key.replace("__", "/"): value for key, value in values.items()}
    return [{"step": n} | {key: value(n) if callable(value) else value for key, value in given.items()} for n in range(1, count + 1)]


def falls(first, last, at):
    return lambda step: first if step < at else last


PROVOKED = {
    "entropy collapses": ({"policy__entropy": falls(0.5, 0.04, 20)}, 22, "entropy has collapsed to 0.04", "algorithm.clip_high"),
    "entropy explodes": ({"policy__entropy": falls(0.5, 1.2, 20)}, 22, "entropy has risen to 1.2", "optimizer.lr"),
    "all wrong": (
        {"groups__informative": falls(5, 1, 20), "groups__all_wrong": falls(2, 7, 20), "groups__all_right": falls(1, 0, 20)},
        37,  # in 20 steps, 18 with 1 and 2 with 5 are 28 of 160; a step before, a fifth
        "18% of the last 160 groups teach something; 1% are solved by all responses and 81% by none",
        "difficulty.samples_per_prompt",
    ),
    "all right": (
        {"groups__informative": falls(5, 1, 20), "groups__all_right": falls(1, 7, 20), "groups__all_wrong": falls(2, 0, 20)},
        37,
        "80% are solved by all responses",
        "drop_above",
    ),
    "gap rises": ({"mismatch__logprob_gap_mean": falls(0.02, 0.07, 20)}, 22, "differ by 0.07 nats, by 0.02", "algorithm.correction"),
    "k3 is large": ({"mismatch__kl_k3": falls(0.001, 0.02, 20)}, 22, "(k3 0.02)", "algorithm.correction"),
    "gradient": ({"optimizer__grad_norm": lambda n: 11.0 if n == 20 else 1.0}, 20, "11 times that of the last 19 steps", "optimizer.lr"),
    "saturated": (
        {"reward__format__mean": falls(0.5, 0.99, 20), "reward__format__std": falls(0.4, 0.03, 20)},
        22,
        "the reward format is saturated at 0.99 (from 0.5)",
        "its weight in reward.function",
    ),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_each_is_said_once_with_what_to_try(name):
    values, at, words, remedy = PROVOKED[name]
    (found,) = warnings(steps(60, **values))
    assert found.step == at
    assert words in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "values",
    [
        {"policy__entropy": lambda n: 0.5 * 0.97**n, "reward__accuracy": lambda n: 0.2 + n / 100},  # to a sixth in 60 steps
        {"policy__entropy": lambda n: None if n % 2 else 0.5, "optimizer__grad_norm": lambda n: 0.0 if n % 2 else 1.0},
        {"stage": falls(0, 1, 30), "rollout__temperature": falls(0.7, 1.4, 30), "policy__entropy": falls(0.3, 1.0, 30)},
        {"mismatch__logprob_gap_mean": falls(3e-7, 1e-5, 20), "mismatch__kl_k3": 1e-9},  # still rounding
        {
            "reward__format__mean": falls(0.5, 1.0, 20),
            "reward__format__std": falls(0.4, 0.0, 20),
            "reward__accuracy": lambda n: 0.2 + n / 100,
        },
        {"reward__format__mean": 1.0, "reward__format__std": 0.0},  # known from the first step on
        {"optimizer__grad_norm": lambda n: 1.0 if n > 10 else float("nan")},
    ],
    ids=["learns", "half the steps train nothing", "a hotter stage", "float32", "format is learned", "format was known", "not finite"],
)
def test_a_healthy_run_is_quiet(values):
    assert warnings(steps(60, **values)) == []


def test_what_comes_again_is_said_again_after_twenty_good_steps():
    spikes = (20, 25, 60)
    found = warnings(steps(70, optimizer__grad_norm=lambda n: 20.0 if n in spikes else 1.0))
    assert [said.step for said in found] == [20, 60]


def test_a_resumed_run_says_nothing_twice(capsys):
    records = steps(60, policy__entropy=falls(0.5, 0.04, 20))
    resumed = Alarms(Console(True, 60), records[:40])
    assert said(capsys, resumed, *records[40:]) == []
    resumed = Alarms(Console(True, 60), records[:15])
    (warning,) = said(capsys, resumed, *records[15:])
    assert warning.startswith("warning: step 22: entropy has collapsed")


def test_remedies_name_settings_that_there_are():
    known = describe_fields()
    for values, *_ in PROVOKED.values():
        (found,) = warnings(steps(60, **values))
        for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)", found.remedy):
            assert f"--{section}.{key}" in known, f"{section}.{key}"
