"""Times of a plan beside published ones, and beside a simulation of an engine that shares no code with it."""

from dataclasses import replace

import pytest

from benchmarks.plan.published import CALIBRATED, MISSED, PREDICTED, WITHIN, rows
from benchmarks.plan.shapes import shape
from benchmarks.rollout.engines import Engine, Hardware, Response
from polaris.plan.cards import card_named
from polaris.plan.decode import Decoding, decode_seconds
from polaris.plan.lengths import lengths
from polaris.plan.setup import Setup, Stage
from polaris.plan.speed import step_time, work_of


def test_published_times_are_reproduced_or_said_not_to_be():
    found = list(rows())
    for row in found:
        print(f"{row.source}, {row.what}: published {row.published:,.2f} s, planned {row.planned:,.2f}, {row.error:+.0%}, {row.kind}")
        assert (abs(row.error) > WITHIN) == (row.kind == MISSED)
        assert bool(row.why) == (row.kind == MISSED)
    kinds = [row.kind for row in found]
    assert kinds.count(CALIBRATED) == 7
    assert kinds.count(PREDICTED) >= 14
    assert kinds.count(MISSED) == 5


def test_an_engine_takes_as_long_as_its_simulation():
    """No more responses than run together, and prompts of no length, so that neither admission nor memory differs."""
    hardware = Hardware(step=5 * 10**9, sequence=30 * 10**6, token=45_000, prefill=0, most=64, memory=10**9)
    found = [round(length) for length in lengths(48, 12_000.0, 40_000)]
    engine = Engine(hardware, 0)
    engine.submit([Response(prompt=0, sample=0, length=length) for length in found])
    while engine.unfinished:
        engine.draw(engine.plan())
    rates = Decoding(step=5e-3, fixed=0.0, sequence=30e-6, token=45e-9, prefill=0.0)
    assert decode_seconds(found, 0, 64, rates) == pytest.approx(engine.used / 1e12, rel=1e-3)
    few = decode_seconds(found, 0, 8, rates)
    assert 1.3 * engine.used / 1e12 < few < 6 * engine.used / 1e12


def test_lengths_have_the_mean_that_is_asked_for():
    found = lengths(1024, 16_000.0, 40_000)
    assert sum(found) / 1024 == pytest.approx(16_000, rel=1e-3)
    assert max(found) == 40_000
    assert 20 < sum(length == 40_000 for length in found) < 120
    assert list(found) == sorted(found, reverse=True)
    assert lengths(3, 100.0, 100) == (100.0,) * 3


def test_flops_of_a_token_by_hand():
    """Qwen3-4B: 36 layers of 100.9M weights four times twice, the head of 389M three times twice."""
    setup = Setup(shape=shape("Qwen3-4B"), card=card_named("H100"), gpus=8)
    matrices, head = 36 * (4 * 2560 * 4096 - 2 * 2560 * 3072 + 3 * 2560 * 9728), 151_936 * 2560
    assert work_of(setup).products == pytest.approx(8 * matrices + 6 * head, rel=1e-3)
    assert work_of(replace(setup, activations="keep")).products == pytest.approx(6 * (matrices + head), rel=1e-3)
    assert work_of(replace(setup, adapters=1)).products == pytest.approx(6 * matrices + 4 * head, rel=1e-3)
    assert work_of(setup).attention == 36 * 4096 * 2 * 4.5


def test_more_gpus_take_less_time_but_never_less_than_the_longest_response():
    steps = [step_time(_run(count), Stage(steps=1, response=32_768)) for count in (8, 16, 64, 256)]
    assert [step.seconds for step in steps] == sorted((step.seconds for step in steps), reverse=True)
    longest = decode_seconds([32_768], 200, 1, Decoding(step=3e-3, fixed=0.0, sequence=0.0, token=0.0, prefill=0.0))
    assert steps[-1].sampling > longest
    assert steps[-1].tokens == steps[0].tokens


def _run(count):
    stages = (Stage(steps=1, response=32_768),)
    return Setup(shape=shape("Qwen3-4B"), card=card_named("H100"), gpus=8, nodes=count // 8, stages=stages)
