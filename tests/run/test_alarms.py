"""Shares of responses without an answer, cut off, or of lost marks, that rise above a half are said once."""

import pytest

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
