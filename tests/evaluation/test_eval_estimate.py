"""Tokens and minutes of an evaluation, before it draws and after its first batch."""

import json

import pytest

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


def test_after_the_first_batch_whichever_of_it_ends_last():
    estimate = Estimate(40, wanted(20), longest=2000, batch=2, pace=None, name="YaRN 1.5: ")
    assert estimate.before().startswith("YaRN 1.5: 40 samples to draw")
    assert estimate.during(0, 100.0) == estimate.during(50, 105.0) == ""
    assert estimate.after(sample(1, 100), 100, 107.0) == ""
    assert estimate.after(sample(2, 5), 110, 108.0) == "", "a short one of the second batch does not count"
    said = estimate.after(sample(0, 300), 1000, 110.0)
    assert said == "YaRN 1.5: after the first 2 samples: 200 tokens a response, 100 tokens/s; about 8k tokens in all, 30.0s more"
    assert estimate.after(sample(3, 5), 1100, 111.0) == ""
    assert estimate.during(4000, 140.0) == "", "something better has been said"


@pytest.mark.parametrize("count", [1, 10])
def test_a_single_batch_is_over_before_it_can_be_estimated(count):
    estimate = Estimate(count, wanted(count), longest=10, batch=10, pace=None)
    assert "minutes" not in estimate.before()
    assert [estimate.after(sample(number, 5), 5, 1.0) for number in range(count)] == [""] * count


@pytest.mark.parametrize("batch", [2, 20], ids=["the first batch runs", "all at once"])
def test_half_a_minute_tells_how_long_it_takes_at_most(batch):
    """20 samples of at most 90,000 tokens; 12,000 in 40 s are 300 a second: 1,788,000 more take 5,960 s, or 99 minutes."""
    estimate = Estimate(40, wanted(20), longest=90_000, batch=batch, pace=None, name="YaRN 2: ")
    assert estimate.during(100, 1000.0) == estimate.during(8_000, 1029.9) == ""
    said = estimate.during(12_000, 1040.0)
    assert said == "YaRN 2: 300 tokens/s, so at most 1h39m more, if every response is drawn to its limit"
    assert estimate.during(24_000, 1080.0) == "", "once"


def test_what_has_ended_tells_how_little_it_could_be_as_far_as_it_does():
    """Ended: 900 and 1,500 tokens, the mean is 1,200; 20 of them are 24,000, of which 12,000 are there: 40 s at 300 a second."""
    estimate = Estimate(20, wanted(20), longest=90_000, batch=20, pace=None)
    estimate.during(0, 0.0)
    estimate.after(sample(0, 900), 5_000, 10.0)
    estimate.after(sample(1, 1_500), 9_000, 20.0)
    assert estimate.during(12_000, 40.0).endswith("to its limit; 40.0s if all were as short as the 2 that have ended")
    early = Estimate(20, wanted(20), longest=90_000, batch=20, pace=None)
    early.during(0, 0.0)
    early.after(sample(0, 500), 5_000, 10.0)
    assert early.during(12_000, 40.0).endswith("to its limit"), "20 x 500 are fewer than there are"


def test_a_server_that_tells_of_whole_responses_alone_has_no_early_speed():
    estimate = Estimate(20, wanted(20), longest=90_000, batch=20, pace=None, live=False)
    assert estimate.during(0, 0.0) == estimate.during(12_000, 40.0) == ""


def test_a_run_gives_its_pace(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_atomically(run / "config.json", b"{}")
    records = [{"step": 0, "eval/response/length_mean": 50.0}, {"step": 1, "throughput/rollout_tokens_per_s": 20.0}]
    write_atomically(run / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    found = pace_of_run(f"{run}@step-1")
    assert (found.length, found.speed) == (50.0, 20.0)
    assert pace_of_run("Qwen/Qwen3-4B") is None
