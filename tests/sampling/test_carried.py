"""What a step leaves for the next one: what goes on, what begins anew, what is waited for, and that none of it is lost."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from groups import group, prompt, same, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from polaris.config.rollout import RolloutConfig
from polaris.data.sampler import Sampler
from polaris.rollout.types import request_of
from polaris.sampling.carried import Carried, Started, divide, due, facts_of, joined, usable
from polaris.sampling.carried_file import FILE, read
from polaris.types import Verdict

CONFIG = RolloutConfig(samples_per_prompt=4, max_response_tokens=12, oversample=1.5, carry_over=True, max_staleness=2)


def begun(name, sample, tokens=5, **fields):
    rollout = scored(name, sample, "+", **fields).rollout
    cut = {key: np.resize(getattr(rollout, key), tokens) for key in ("tokens", "logprobs", "versions")}
    return replace(rollout, finish_reason="abort", **cut)


def started(name="a", step=3, ended="", cut=(), **fields):
    return Started(
        prompt_id=name,
        step=step,
        scored=tuple(scored(name, sample, letter, **fields) for sample, letter in enumerate(ended)),
        begun=tuple(begun(name, sample, **fields) for sample in cut),
    )


def test_the_file_keeps_every_field(tmp_path):
    verdict = Verdict("wrong", "a reason", "\ud800 answer", -0.25, (0.1, 0.2), "Traceback", ("x = 1", "y"), None, 0.5)
    mixed = replace(scored("a", 0, "+").rollout, versions=np.arange(3, 3 + len(scored("a", 0, "+").rollout.tokens), dtype=np.int32))
    rows = (
        Started(prompt_id="a", step=2, scored=(replace(scored("a", 0, "+"), rollout=mixed, verdict=verdict),), begun=(begun("a", 3, 4),)),
        started("b", step=1),
        started("c", step=2, ended="+-x", temperature=0.7),
    )
    Carried(started=rows).save(tmp_path)
    loaded = Carried()
    loaded.load(tmp_path)
    assert [(one.prompt_id, one.step, len(one.scored), len(one.begun)) for one in loaded.started] == [
        ("a", 2, 1, 1),
        ("b", 1, 0, 0),
        ("c", 2, 3, 0),
    ]
    for mine, theirs in zip(loaded.started, rows, strict=True):
        for found, wanted in zip((*mine.scored, *mine.begun), (*theirs.scored, *theirs.begun), strict=True):
            assert same(found, wanted)
        assert [rollout.tokens.dtype for rollout in mine.rollouts] == [np.int32] * len(mine.rollouts)
        assert [rollout.logprobs.dtype for rollout in mine.rollouts] == [np.float32] * len(mine.rollouts)
    assert "mask" not in pq.read_schema(tmp_path / FILE).names


def test_without_anything_there_is_no_file(tmp_path):
    carried = Carried(started=(started(),))
    Carried().save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path) == []
    carried.load(tmp_path)
    assert carried.started == (), "a checkpoint without a file has left nothing"


def test_a_response_goes_on_behind_its_tokens_with_random_numbers_of_its_own():
    one, text = started(step=3, ended="+-", cut=(3,)), prompt("a")
    fresh, rest = one.requests(text, 4, 9, 12)
    assert fresh == request_of(text, 2, 9, "train", 3)
    (cut,) = one.begun
    assert rest.prompt_tokens == (*text.tokens, *cut.tokens.tolist())
    assert (rest.sample, rest.max_tokens) == (3, 12 - len(cut.tokens))
    assert rest.seed != request_of(text, 3, 9, "train", 3).seed
    end = begun("a", 3, 6, version=7)
    whole = joined(cut, end)
    assert whole.tokens.tolist() == [*cut.tokens.tolist(), *end.tokens.tolist()]
    assert whole.logprobs.tolist() == [*cut.logprobs.tolist(), *end.logprobs.tolist()]
    assert whole.versions.tolist() == [5] * len(cut.tokens) + [7] * len(end.tokens)
    assert whole.seed == cut.seed


LONG = replace(begun("a", 0, 12), finish_reason="length")


@pytest.mark.parametrize(
    ("one", "version", "changed", "fits"),
    [
        (started(ended="+", cut=(1,)), 7, {}, True),
        (started(ended="+", cut=(1,)), 8, {}, False),
        (started(cut=(1,)), 6, {"carry_over": False}, False),
        (started(cut=(1,)), 5, {"carry_over": False}, True),
        (started(cut=(1,)), 5, {"temperature": 1.1}, False),
        (started(cut=(3,)), 5, {"samples_per_prompt": 4}, True),
        (started(cut=(3,)), 5, {"samples_per_prompt": 3}, False),
        (started(cut=(3,)), 5, {"max_response_tokens": 6}, True),
        (started(cut=(3,)), 5, {"max_response_tokens": 5}, False),
        (Started(prompt_id="a", step=3, scored=(replace(scored("a", 0, "-"), rollout=LONG),)), 5, {}, True),
        (Started(prompt_id="a", step=3, scored=(replace(scored("a", 0, "-"), rollout=LONG),)), 5, {"max_response_tokens": 13}, False),
        (Started(prompt_id="a", step=3, scored=(replace(scored("a", 0, "-"), rollout=LONG),)), 5, {"max_response_tokens": 11}, False),
    ],
)
def test_a_prompt_begins_anew_if_it_is_too_old_or_of_other_settings(one, version, changed, fits):
    found, restarted = usable([one], version, replace(CONFIG, **changed))
    assert found == ([one] if fits else [Started(prompt_id="a", step=3)])
    assert restarted == (0 if fits else len(one.rollouts))


def test_what_would_be_too_old_in_the_next_step_is_waited_for():
    young, old = started("a", step=4, cut=(0,), version=5), started("b", step=4, cut=(0,), version=4)
    none = started("c", step=3)
    assert due([young, old, none], 5, version=5, most=2) == {"c"} | set()
    assert due([young, old, none], 5, version=6, most=2) == {"b", "c"}
    assert due([young, old, none], 6, version=5, most=2) == {"a", "b", "c"}, "they have waited for two steps"


def test_a_step_takes_complete_groups_in_the_order_of_their_prompts():
    prompts = [
        started("a", ended="+-"),
        started("b", ended="+"),
        started("c", ended="--"),
        started("d", ended="-+"),
        started("e", ended="+-"),
    ]
    teach = lambda one: len({s.verdict.kind for s in one.scored}) > 1  # noqa: E731
    names = lambda some: "".join(one.prompt_id for one in some)  # noqa: E731
    assert [names(some) for some in divide(prompts, 2, teach, 2)] == ["acd", "be"]
    assert [names(some) for some in divide(prompts, 2, teach, None)] == ["acde", "b"]


def test_the_metrics_count_tokens_and_versions():
    taken, cut = [group("a", "+-", version=3)], [started("b", ended="+", cut=(1,))]
    lengths = [len(one.rollout.tokens) for one in taken[0].rollouts]
    kept = [len(rollout.tokens) for rollout in cut[0].rollouts]
    facts = facts_of(taken, cut, cut, 7, 5)
    assert facts["rollout/taken_length_mean"] == sum(lengths) / 2
    assert facts["rollout/carried_length_mean"] == sum(kept) / 2
    assert (facts["rollout/staleness_mean"], facts["rollout/staleness_max"], facts["rollout/restarted"]) == (2, 2, 7)
    assert facts["rollout/dropped_tokens"] == 0
    assert facts_of(taken, cut, [started("b")], 0, 5)["rollout/dropped_tokens"] == sum(kept)


@settings(max_examples=60)
@given(st.integers(1, 8), st.floats(1.01, 2), st.integers(0, 20), st.integers(1, 4), st.integers(0, 2**32))
def test_no_prompt_is_lost_or_drawn_twice_in_an_epoch_and_none_waits_for_ever(places, oversample, more, most, seed):
    """Steps that take the first complete prompts, where the same ones are always the longest."""
    begins = int(np.ceil(oversample * places))
    size = begins + more
    lengths = np.random.default_rng(seed).permutation(size)
    sampler, order = Sampler(size, places, seed, most=begins), Sampler(size, 1, seed)
    left, taken, waited = [], [], []
    for step in range(1, 4 * size // places + 2):
        if step % 3 == 0:  # as from a checkpoint
            saved, sampler = sampler.state(), Sampler(size, places, seed, most=begins)
            sampler.restore(saved)
        busy = {int(one.prompt_id) for one in left}
        new = sampler.next(step, begins - len(left), busy)
        assert not busy & set(new)
        prompts = [*left, *(Started(prompt_id=str(index), step=step) for index in new)]
        waits, found = due(prompts, step, 0, most), set()
        for one in sorted(prompts, key=lambda one: lengths[int(one.prompt_id)]):
            if len(found) >= places and waits <= found:
                break
            found.add(one.prompt_id)
        ended = [replace(one, scored=(scored("a", 0, "+"),)) if one.prompt_id in found else one for one in prompts]
        now, left = divide(ended, 1, lambda one: True, places)
        left = [Started(prompt_id=one.prompt_id, step=one.step) for one in left]
        assert len(now) == places
        taken += [int(one.prompt_id) for one in now]
        waited += [step - one.step for one in now]
        state = sampler.state()
        behind = [*taken, *(int(one.prompt_id) for one in left), *state.get("deferred", ())]
        assert len(behind) == state["epoch"] * size + state["cursor"]
    wanted = [order.next()[0] for _ in behind]
    assert sorted(behind) == sorted(wanted)
    assert max(waited) <= most
