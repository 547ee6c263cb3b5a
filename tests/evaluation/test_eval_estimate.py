"""Tokens and minutes of an evaluation, before it draws and after its first batch."""

import json

import pytest

from polaris.evaluation import estimate as module
from polaris.evaluation.estimate import Estimate, Pace, pace_of_run
from polaris.evaluation.samples import Key, Sample
from polaris.evaluation.source import Wanted
from polaris.files import write_atomically


def wanted(count):
    return [Wanted(key=Key("set", "p", number), seed=0) for number in range(count)]


def sample(number, tokens):
    return Sample(key=Key("set", "p", number), seed=0, response="", tokens=tokens, finish_reason="stop")


def test_before_it_draws_the_most_tokens_are_known_and_more_at_a_known_pace():
    plain = Estimate(100, wanted(100), longest=2000, batch=10, pace=None).before()
    assert plain == "100 samples to draw, at most 200k response tokens; minutes are estimated when the first 10 have ended"
    paced = Estimate(100, wanted(10), longest=2000, batch=10, pace=Pace(length=600.0, speed=100.0, source="the run")).before()
    assert paced == "100 samples to draw, at most 200k response tokens; about 60k tokens, 10m00s at the pace of the run"
    assert "about 10k tokens" in Estimate(100, wanted(10), longest=100, batch=10, pace=Pace(length=600.0, speed=1.0, source="x")).before()


def test_after_the_first_batch_whichever_of_it_ends_last(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    estimate = Estimate(40, wanted(20), longest=2000, batch=2, pace=None, name="YaRN 1.5: ")
    assert estimate.before().startswith("YaRN 1.5: 40 samples to draw")
    estimate.started()
    now[0] += 10
    estimate.started()
    assert estimate.after(sample(1, 100), 100) == ""
    assert estimate.after(sample(2, 5), 110) == "", "a short one of the second batch does not count"
    said = estimate.after(sample(0, 300), 1000)
    assert said == "YaRN 1.5: after the first 2 samples: 200 tokens a response, 100 tokens/s; about 8k tokens in all, 30.0s more"
    assert estimate.after(sample(3, 5), 1100) == ""


@pytest.mark.parametrize("count", [1, 10])
def test_a_single_batch_is_over_before_it_can_be_estimated(count):
    estimate = Estimate(count, wanted(count), longest=10, batch=10, pace=None)
    assert "minutes" not in estimate.before()
    assert [estimate.after(sample(number, 5), 5) for number in range(count)] == [""] * count


def test_a_run_gives_its_pace(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_atomically(run / "config.json", b"{}")
    records = [{"step": 0, "eval/response/length_mean": 50.0}, {"step": 1, "throughput/rollout_tokens_per_s": 20.0}]
    write_atomically(run / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    found = pace_of_run(f"{run}@step-1")
    assert (found.length, found.speed) == (50.0, 20.0)
    assert pace_of_run("Qwen/Qwen3-4B") is None
