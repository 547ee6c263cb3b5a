"""The rollout simulator foretells what the real scheduler does on the same lengths, to the picosecond."""

import json
from dataclasses import replace

import pytest

from benchmarks.rollout.engines import Engine, Hardware, Response
from benchmarks.rollout.lengths import LogNormal, Measured, likeness, read_groups
from benchmarks.rollout.policies import Policy, Run, Workload, ideal
from benchmarks.rollout.replay import replayed
from benchmarks.rollout.separate import Pace, Separate

HARDWARE = Hardware(step=5_000, sequence=30, token=45, prefill=20, most=8, memory=280)
LENGTHS = LogNormal(30, 0.8, 120, 0.6, samples=4, seed=3)
LOAD = Workload(lengths=LENGTHS, hardware=HARDWARE, engines=4, prompts=12, samples=4, steps=4, silent=5, prompt_tokens=7)
POLICIES = (
    Policy(name="queue"),
    Policy(name="queue, longest first", history=True),
    Policy(name="redrawn", oversample=1.5, history=True),
    Policy(name="carried", oversample=1.5, carry=True, history=True, max_staleness=2),
    Policy(name="carried, none older than 1", oversample=2.0, carry=True, max_staleness=1),
)


@pytest.mark.parametrize("engines", [1, 4])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_real_scheduler_decides_as_the_simulator(policy, engines):
    """Times of the step and of each engine, who takes which response when, which groups are taken, the weights of each token."""
    load = replace(LOAD, engines=engines)
    assert replayed(policy, load) == list(Run(policy, load).steps())


def test_every_rule_changes_a_decision_so_that_the_replay_would_notice():
    """Else equal decisions would say nothing about the rule."""
    variants = [*POLICIES, replace(POLICIES[1], chunk=4), replace(POLICIES[1], share="dealt"), replace(POLICIES[4], max_staleness=2)]
    loads = [LOAD] * len(variants) + [replace(LOAD, silent=0), replace(LOAD, hardware=replace(HARDWARE, memory=10**6))]
    found = [list(Run(policy, load).steps()) for policy, load in zip([*variants, POLICIES[3], POLICIES[1]], loads, strict=True)]
    assert all(a != b for number, a in enumerate(found) for b in found[:number])


def test_a_step_takes_its_parts_and_the_context_grows_by_a_token_of_each_sequence():
    engine = Engine(HARDWARE, version=0)
    first, second = Response(0, 0, length=3, prompt_tokens=10), Response(0, 1, length=5, prompt_tokens=20)
    engine.submit([first, second])
    assert engine.plan() == 1
    assert engine.duration(1) == 5_000 + 2 * 30 + 45 * 30 + 20 * 30
    assert engine.draw(1) == []
    assert engine.plan() == 2
    assert engine.duration(2) == 2 * (5_000 + 2 * 30) + 45 * (32 + 34)
    assert engine.draw(2) == [first]
    assert (engine.plan(), engine.duration(2)) == (2, 2 * (5_000 + 30) + 45 * (23 + 24))


def test_where_memory_is_full_the_last_one_is_put_back_and_read_anew():
    engine = Engine(replace(HARDWARE, memory=36), version=0)
    first, second = Response(0, 0, length=9, prompt_tokens=10), Response(0, 1, length=9, prompt_tokens=20)
    engine.submit([first, second])
    for steps in (1, 2):
        assert engine.plan() == steps
        engine.draw(steps)
    assert (engine.plan(), engine.waiting, second.parts) == (6, 1, [(0, 3)])
    assert engine.draw(6) == [first]
    assert engine.plan() == 1
    assert engine.duration(1) == 5_000 + 30 + 45 * 23 + 20 * 23


def test_the_bound_of_equal_responses_is_their_own_time():
    """All run at once and end together: no scheduler is faster, and none is slower."""
    lengths = Measured(((7, 7),), samples=2, scale=10, cap=1000, seed=0)
    load = Workload(lengths=lengths, hardware=replace(HARDWARE, prefill=0, most=2, memory=10**6), engines=4, prompts=4, samples=2, steps=1)
    steps = list(Run(Policy(name="", share="dealt"), load).steps())
    assert [ideal(load, steps)[0] * 10**12] == [steps[0].duration] == [70 * (5_000 + 2 * 30) + 45 * 2 * (70 * 100 + 70 * 69 // 2)]


def test_nothing_is_lost_or_drawn_twice_and_what_is_carried_has_no_bias():
    """Over a whole run, which finishes all that it begins: carried responses have the lengths that they had; redrawn ones may not."""
    steps = list(Run(POLICIES[3], replace(LOAD, steps=12, silent=0)).steps())
    prompts = [prompt for step in steps for prompt, _ in step.taken]
    assert sorted(prompts) == list(range(12 * 12))
    assert sum(step.drawn for step in steps) == sum(sum(step.lengths()) for step in steps)
    for version, step in enumerate(steps):
        assert max(version - of for _, responses in step.taken for parts in responses for of, _ in parts) <= 2
    for prompt, responses in (one for step in steps for one in step.taken):
        for sample, parts in enumerate(responses):
            assert sum(tokens for _, tokens in parts) == LENGTHS.drawn(prompt, parts[0][0])[sample]


def test_engines_beside_the_trainer_keep_to_the_staleness_and_discard_nothing():
    load = replace(LOAD, steps=8, silent=0)
    train = 2e-6  # seconds: about as long as the rollouts of a step
    found = [Separate(load, Pace(staleness=most, train=train, publish=0.0)).run() for most in (0, 1, 2)]
    assert [one.staleness_max for one in found] == [0, 1, 2]
    assert found[2].seconds < found[1].seconds < found[0].seconds
    assert found[0].seconds > train
    assert found[0].tokens == sum(sum(LENGTHS.drawn(prompt, prompt // load.prompts)) for prompt in range(8 * load.prompts))


def test_likeness_of_the_responses_to_a_prompt_is_measured_as_it_was_drawn(tmp_path):
    drawn = LogNormal(1000, 0.5, 10**6, 0.7, samples=8, seed=0)
    (tmp_path / "rollouts").mkdir()
    rows = [{"step": 1, "prompt": str(p), "length": length} for p in range(500) for length in drawn.drawn(p, 0)]
    (tmp_path / "rollouts" / "step-000001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    deviation, alike = likeness(read_groups(tmp_path))
    assert deviation == pytest.approx(0.5, rel=0.05)
    assert alike == pytest.approx(0.7, abs=0.05)
