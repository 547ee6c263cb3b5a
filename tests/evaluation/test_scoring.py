"""The end of an evaluation waits for verdicts, but not longer than a stop request allows."""

import time

import pytest

from polaris.config.reward import RewardConfig
from polaris.evaluation.samples import Key, Sample
from polaris.evaluation.scoring import Scoring
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import load_suites

HANGS = r"\boxed{\sin(2^{e^{99}})}"


@pytest.fixture
def scoring(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"id": "p", "problem": "One?", "answer": "\\\\sqrt{2}"}\n', encoding="utf-8")
    settings = EvalSettings(suite=(str(tmp_path / "set.jsonl"),), samples_per_prompt=8)
    with Scoring(RewardConfig(workers=1, timeout_s=4.0, require_thinking=False), load_suites(settings)) as scoring:
        yield scoring


def submit(scoring, *responses):
    for number, response in enumerate(responses):
        scoring.submit(1.0, Sample(key=Key("set", "p", number), seed=0, response=response, tokens=5, finish_reason="stop"))


def test_a_stop_does_not_wait_for_verdicts(scoring):
    submit(scoring, r"\boxed{1}")
    assert scoring.drain(lambda: False), "the graders have started"
    submit(scoring, HANGS, HANGS.replace("99", "98"), HANGS.replace("99", "97"))
    begun = time.monotonic()
    assert not scoring.drain(lambda: True)
    assert time.monotonic() - begun < 3
    scoring.__exit__(None, None, None)
    assert time.monotonic() - begun < 8, "one answer in progress is waited for, not three"


def test_without_a_stop_everything_is_graded_in_order(scoring):
    submit(scoring, r"\boxed{\sqrt{2}}", r"\boxed{2}", "none")
    assert scoring.drain(lambda: False)
    assert [one.strict.kind for one in scoring.collect()] == ["correct", "wrong", "no_answer"]
