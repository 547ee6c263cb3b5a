"""Grading in the background: what the reward is told, and that its failure ends the run."""

import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest
from groups import prompt, scored

from polaris.errors import RunFailed
from polaris.sampling.grading import Grading
from polaris.types import Verdict


class Grader:
    def __init__(self):
        self.items, self.go, self.error = [], threading.Event(), None

    def score(self, items):
        self.go.wait(20)
        self.items += items
        if self.error:
            raise self.error
        return [Verdict("correct", answer=item.response) for item in items]


@pytest.fixture
def grader():
    grader = Grader()
    yield grader
    grader.go.set()


def grading(grader, heard):
    tokenizer = SimpleNamespace(decode=lambda tokens, skip_special_tokens: f"{len(tokens)} {skip_special_tokens}")
    return Grading(SimpleNamespace(tokenizer=tokenizer, grader=grader), {"a": prompt("a")}, 77, heard.append)


def test_responses_are_graded_while_others_are_drawn(grader):
    heard, rollouts = [], [scored("a", sample, "+").rollout for sample in range(3)]
    with grading(grader, heard) as background:
        for rollout in rollouts:
            background.add(rollout)
        background.check()
        assert heard == []
        grader.go.set()
        found = background.scored()
    assert [one.rollout for one in found] == rollouts
    assert {id(one) for one in heard} == {id(one) for one in found}
    assert [one.text for one in found] == [f"{len(rollout.tokens)} True" for rollout in rollouts]
    assert {(item.ground_truth, item.finish_reason, item.limit) for item in grader.items} == {("truth a", "stop", 77)}


@pytest.mark.parametrize("asked", ["check", "wait", "scored"])
def test_a_reward_that_fails_is_not_silent(grader, asked):
    grader.error = RunFailed("the reward cannot start")
    grader.go.set()
    with grading(grader, []) as background:
        background.add(scored("a", 0, "+").rollout)
        background.add(scored("a", 1, "+").rollout)
        while len(grader.items) < 2:
            time.sleep(0.001)
        with pytest.raises(RunFailed, match="cannot start"):
            getattr(background, asked)()


def test_left_early_it_drops_what_has_not_begun_and_does_not_wait_for_what_hangs(grader):
    with grading(grader, heard := []) as background:
        for sample in range(99):
            background.add(scored("a", sample, "+").rollout)
    assert heard == []
    grader.go.set()
    with pytest.raises(CancelledError):
        background.scored()
    assert len(grader.items) < 20
