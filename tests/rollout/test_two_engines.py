"""The queue over two engines: each draws what one engine alone would, whoever is slow, cut off or stopped."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from programs import run_ranks
from test_one_engine import PROMPTS, SAMPLES, SAMPLING, draw_of

pytestmark = pytest.mark.distributed
SCRIPT = Path(__file__).with_name("draw_on_ranks.py")


@pytest.fixture(scope="module")
def drawn(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "found.pkl"
    run_ranks(2, SCRIPT, models.root / "A", path)
    return pickle.loads(path.read_bytes())


@pytest.fixture(scope="module")
def alone(shared, models):
    engine = shared("transformers", "A")
    engine.load_weights(models.load("A").named_parameters(), 0)
    rollouts = engine.generate(draw_of({}).requests(3), SAMPLING, on_progress=lambda progress: None, should_stop=lambda: False)
    return {(rollout.prompt_id, rollout.sample): rollout for rollout in rollouts}


def assert_beginnings(rollouts, alone):
    """Each is what one engine draws, or the beginning of it if it was cut off."""
    for mine in rollouts:
        theirs = alone[mine.prompt_id, mine.sample]
        length = len(mine.tokens) if mine.finish_reason == "abort" else len(theirs.tokens)
        assert mine.tokens.tolist() == theirs.tokens[:length].tolist()
        assert np.abs(mine.logprobs - theirs.logprobs[:length]).max() < 1e-5


@pytest.mark.parametrize("name", ["whole", "late"])
def test_two_engines_draw_the_samples_of_one(drawn, alone, name):
    scored, cut, ended, interrupted = drawn[name]
    assert not cut
    assert not interrupted
    assert Counter((rollout.prompt_id, rollout.sample) for rollout in scored) == Counter(alone.keys())
    arrays = [rollout for rollout in scored if rollout.tokens[0] >= 0]
    assert len(arrays) == len(scored), "rank 0 has all of them in full"
    assert_beginnings(scored, alone)
    assert sum(ended) == len(alone)
    if name == "late":
        assert ended[0] > 2 * ended[1] > 0, "the fast one helps, and the slow one has found its own"


def test_enough_groups_end_both_and_nothing_is_drawn_twice(drawn, alone):
    for scored, cut, ended, _ in drawn["cut"]:
        keys = [(rollout.prompt_id, rollout.sample) for rollout in (*scored, *cut)]
        assert len(keys) == len(set(keys))
        assert sum(ended) == len(scored) < len(alone)
        assert_beginnings([*scored, *cut], alone)
        complete = Counter(rollout.prompt_id for rollout in scored)
        parities = {name: {len(r.tokens) % 2 for r in scored if r.prompt_id == name} for name, n in complete.items() if n == SAMPLES}
        assert sum(len(parity) == 2 for parity in parities.values()) >= 6


def test_draws_leave_nothing_in_the_store(drawn):
    assert drawn["keys"] == []


def test_a_stop_of_one_engine_ends_the_draw_of_both(drawn):
    scored, cut, ended, interrupted = drawn["stopped"]
    assert interrupted
    assert scored == cut == []
    assert sum(ended) < len(PROMPTS) * SAMPLES / 2
