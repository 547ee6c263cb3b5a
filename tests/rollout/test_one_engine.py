"""The queue with one engine: what is drawn is what `generate` draws of the same requests, bit for bit."""

import time
from itertools import count
from types import SimpleNamespace

import pytest
from tiny_models import VOCAB, ahead_too, prompt
from torch.distributed import HashStore

from polaris.config.rollout import RolloutConfig
from polaris.rollout.types import Sampling
from polaris.sampling.board import Enough
from polaris.sampling.draw import Draw, sample
from polaris.types import Prompt, Verdict

NEVER = SimpleNamespace(requested=lambda: False)
ALONE = SimpleNamespace(rank=0, size=1, is_main=True, any=bool, gather=list, store=HashStore)
PROMPTS = [
    Prompt(id=f"p{number}", text="", tokens=prompt(3 + number, start=5 * number % VOCAB), ground_truth="", source="")
    for number in range(22)
]
SAMPLES, SAMPLING = 4, Sampling(temperature=1.0, max_tokens=48)


def context_of(engine, *, delay=0.0, stop=NEVER):
    """A rank with this engine, of 64 sequences at a time, whose reward likes responses with an even number of tokens."""

    def score(items):
        time.sleep(delay)
        return [Verdict("wrong" if item.length % 2 else "correct", reward=1.0 - item.length % 2) for item in items]

    return SimpleNamespace(
        config=SimpleNamespace(rollout=RolloutConfig(max_concurrent=64), seed=3),
        world=ALONE,
        engine=engine,
        tokenizer=SimpleNamespace(decode=lambda tokens, **_: ""),
        grader=SimpleNamespace(score=score, has_raised=False),
        console=SimpleNamespace(progress=lambda *facts: None, warning=lambda text: None),
        stop=stop,
        draws=count(),
        peers=None,
        episode=None,
    )


def draw_of(expected):
    return Draw(prompts=PROMPTS, samples=SAMPLES, sampling=SAMPLING, stream="train", step=2, expected=expected)


@pytest.mark.parametrize("expected", [{}, {one.id: float(number * 7 % 22) for number, one in enumerate(PROMPTS)}], ids=["new", "known"])
def test_more_requests_than_fit_are_drawn_as_by_generate(engine, expected):
    draw = draw_of(expected)
    requests = draw.requests(3)
    with sample(context_of(engine), draw, requests) as sampled:
        found = {(one.rollout.prompt_id, one.rollout.sample): one.rollout for one in sampled.scored()}
    assert sampled.cut == []
    order = sorted(requests, key=lambda request: -expected.get(request.prompt_id, 0))
    wanted = engine.generate(order, SAMPLING, on_progress=lambda progress: None, should_stop=lambda: False)
    assert len({len(rollout.tokens) for rollout in wanted}) > 10
    assert len(found) == len(wanted) == len(PROMPTS) * SAMPLES > 64
    for theirs in wanted:
        mine = found[theirs.prompt_id, theirs.sample]
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        assert mine.logprobs.tolist() == theirs.logprobs.tolist()
        assert (mine.finish_reason, mine.seed, mine.temperature) == (theirs.finish_reason, theirs.seed, theirs.temperature)


def differ(group):
    return len({one.verdict.reward for one in group.rollouts}) > 1


def cut_off(engine, delay=0.0):
    draw = draw_of({})
    with sample(context_of(engine, delay=delay), draw, draw.requests(3), enough=Enough(groups=6, teaches=differ)) as sampled:
        return sampled.scored(), sampled.cut


@ahead_too
def test_with_enough_groups_it_ends_at_the_same_token_however_long_grading_takes(engine):
    draw = draw_of({})
    wanted = {
        (rollout.prompt_id, rollout.sample): rollout
        for rollout in engine.generate(draw.requests(3), SAMPLING, on_progress=lambda progress: None, should_stop=lambda: False)
    }
    (ended, cut), again = cut_off(engine), cut_off(engine, delay=0.05)
    assert 0 < len(ended) < len(wanted)
    assert cut
    everything = [*(one.rollout for one in ended), *cut]
    for mine, theirs in zip(everything, [*(one.rollout for one in again[0]), *again[1]], strict=True):
        assert (mine.prompt_id, mine.sample, mine.tokens.tolist()) == (theirs.prompt_id, theirs.sample, theirs.tokens.tolist())
    for mine in everything:
        tokens = wanted[mine.prompt_id, mine.sample].tokens.tolist()
        assert mine.tokens.tolist() == (tokens[: len(mine.tokens)] if mine.finish_reason == "abort" else tokens)
        assert len(mine.tokens) == len(mine.logprobs) == len(mine.versions) > 0
    assert all(rollout.finish_reason == "abort" for rollout in cut)
    assert not engine.running


def test_what_is_complete_already_may_be_enough_and_nothing_is_drawn(engine):
    with sample(context_of(engine), draw_of({}), draw_of({}).requests(3), enough=Enough(groups=6, teaches=differ)) as sampled:
        scored = sampled.scored()
    whole = {name for name in {one.rollout.prompt_id for one in scored} if sum(one.rollout.prompt_id == name for one in scored) == SAMPLES}
    before = {name: [one for one in scored if one.rollout.prompt_id == name] for name in whole}
    requests = [request for request in draw_of({}).requests(3) if request.prompt_id not in whole]
    with sample(context_of(engine), draw_of({}), requests, enough=Enough(groups=6, teaches=differ, before=before)) as sampled:
        assert sampled.scored() == sampled.cut == []


def test_a_stop_leaves_an_engine_that_can_go_on(engine):
    calls = iter(range(99))
    context = context_of(engine, stop=SimpleNamespace(requested=lambda: next(calls) > 9))
    with sample(context, draw_of({}), draw_of({}).requests(3)) as sampled:
        assert sampled.interrupted
    assert not engine.running
    rollouts = engine.generate(draw_of({}).requests(3)[:2], SAMPLING, on_progress=lambda progress: None, should_stop=lambda: False)
    assert len(rollouts) == 2
