"""A scripted batch through rescue and substitution: what stands where, with which fields."""

from dataclasses import replace

import numpy as np
import pytest
from groups import batch, group, same

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.data.pass_rates import PassRates
from polaris.embedded.tokenizer import build_tokenizer
from polaris.learn.curate import counted_samples, curate, with_kl
from polaris.learn.success_buffer import SuccessBuffer
from polaris.observe.samples import choose
from polaris.run.record import group_facts, reward_facts, rollout_samples
from polaris.types import Verdict

LETTERS = {"a": "+--+", "b": "++++", "c": "--0-", "d": "----", "e": "x+xx", "f": "-x+-"}


def settings(places=6, **algorithm):
    return RunConfig(algorithm=AlgorithmConfig(**algorithm), trainer=TrainerConfig(prompts_per_step=places))


@pytest.fixture
def successes():
    """Prompt c was solved twice by version 2 at temperature 0.7; so was prompt b."""
    store = SuccessBuffer(2)
    for name in "bc":
        store.add([group(name, "+-+", version=2, temperature=0.7)])
    return store


def check_sample(sample, group, s, advantage):
    assert sample.prompt_tokens == group.prompt.tokens
    assert sample.rollout is group.rollouts[s].rollout
    assert sample.stored == group.rollouts[s].stored
    assert sample.advantage == pytest.approx(advantage, rel=1e-5)


def advantages(rewards):
    return [(r - np.mean(rewards)) / (np.std(rewards, ddof=1) + 1e-6) for r in rewards]


def test_every_field_of_a_rescued_group(successes):
    drawn = batch(**LETTERS)
    curated = curate(drawn, settings(), successes, step=9)
    assert curated.drawn == drawn, "the policy's own responses stay as they are"
    assert curated.trained == [0, 2, 5]
    [place] = [s for s in range(4) if curated.groups[2].rollouts[s] is not drawn[2].rollouts[s]]
    put_in, failure = curated.groups[2].rollouts[place], drawn[2].rollouts[place]
    stored = successes.of("c")
    [origin] = [success for success in stored if success.text == put_in.text]
    assert put_in.text.startswith("c/")
    assert put_in.text.endswith("/2")
    assert put_in.verdict == Verdict("correct", answer="1", reward=1.0)
    assert np.array_equal(put_in.rollout.tokens, origin.rollout.tokens)
    assert np.array_equal(put_in.rollout.logprobs, origin.rollout.logprobs)
    assert (put_in.rollout.version, put_in.rollout.temperature, put_in.rollout.seed) == (2, 0.7, origin.rollout.seed)
    assert put_in.rollout.finish_reason == "stop"
    assert (put_in.rollout.prompt_id, put_in.rollout.sample, put_in.stored) == ("c", failure.rollout.sample, True)
    expected = advantages([1.0 if s == place else 0.0 for s in range(4)])
    assert curated.advantages[2] == pytest.approx(expected)
    for s in range(4):
        check_sample(curated.samples[4 + s], curated.groups[2], s, expected[s])
    assert curated.samples[4 + place].rollout.temperature == 0.7
    assert same(failure, group("c", "--0-").rollouts[place]), "the failure itself is as it was drawn"


def test_the_choice_of_failure_and_success_follows_the_step(successes):
    drawn = batch(**LETTERS)
    seen = set()
    for step in range(40):
        first, again = (curate(drawn, settings(), successes, step) for _ in range(2))
        [rescued] = first.rescued
        assert rescued.text == again.rescued[0].text
        seen.add((rescued.rollout.sample, rescued.text))
    assert len({sample for sample, _ in seen}) == 4
    assert len({text for _, text in seen}) == 2


@pytest.mark.parametrize(
    ("seed", "step", "trained", "place", "success"),
    [(0, 1, [0, 0, 2, 5, 2, 5], 3, "c/2/2"), (0, 2, [0, 5, 2, 0, 2, 5], 0, "c/0/2"), (1, 2, [0, 0, 2, 5, 2, 5], 2, "c/0/2")],
)
def test_the_choice_at_a_seed_and_a_step_is_pinned(successes, seed, step, trained, place, success):
    """Which groups are copied, which failure goes and which success comes; a run resumed under another version goes on with the same."""
    drawn = batch(**LETTERS)
    curated = curate(drawn, replace(settings(substitution=True), seed=seed), successes, step)
    assert curated.trained == trained
    assert [(rescued.rollout.sample, rescued.text) for rescued in curated.rescued] == [(place, success)]


def test_a_lost_verdict_is_no_failure_to_replace(successes):
    drawn = batch(c="x-x-")
    for step in range(20):
        [rescued] = curate(drawn, settings(1), successes, step).rescued
        assert rescued.rollout.sample in (1, 3)


def test_every_field_of_a_substituted_batch(successes):
    drawn = batch(**LETTERS)
    curated = curate(drawn, settings(substitution=True), successes, step=9)
    assert len(curated.trained) == 6
    assert sorted(curated.trained) == [0, 0, 2, 2, 5, 5]
    assert [curated.trained[p] for p in (0, 2, 5)] == [0, 2, 5]
    samples = iter(curated.samples)
    for p in curated.trained:
        letters = [scored.verdict for scored in curated.groups[p].rollouts]
        valid = [s for s in range(4) if not letters[s].lost]
        expected = advantages([letters[s].reward for s in valid])
        for s, advantage in zip(valid, expected, strict=True):
            check_sample(next(samples), curated.groups[p], s, advantage)
    assert next(samples, None) is None


def test_the_record_counts_what_was_drawn_and_what_became_of_it(successes):
    drawn = batch(**LETTERS)
    curated = curate(drawn, settings(substitution=True), successes, step=9)
    assert group_facts(curated) == {
        "groups/drawn": 6,
        "groups/informative": 2,
        "groups/all_right": 1,
        "groups/all_wrong": 2,
        "groups/too_few": 1,
        "groups/scarce": 0,
        "groups/substituted": 3,
        "rescue/groups": 1,
        "rescue/age_mean": 3.0,
        "rescue/age_max": 3,
        "update/skipped": 0,
    }
    facts = reward_facts([scored for group in drawn for scored in group.rollouts])
    assert facts["reward/mean"] == facts["reward/accuracy"] == 8 / 24
    everything = list(np.ndindex(6, 4))
    order = choose(9, [curated.groups[p].rollouts[s].verdict.kind for p, s in everything], 24)
    rows = rollout_samples(curated, build_tokenizer(), step=9, count=24)
    for row, index in zip(rows, order, strict=True):
        p, s = everything[index]
        scored = curated.groups[p].rollouts[s]
        assert (row.prompt, row.ground_truth) == (f"problem {drawn[p].prompt.id}", f"truth {drawn[p].prompt.id}")
        assert (row.response, row.verdict, row.version) == (scored.text, scored.verdict.kind, scored.rollout.version)
        assert row.advantage == curated.advantages[p, s]


@pytest.mark.parametrize(("share", "scarce"), [(0.0, False), (2 / 6, False), (0.4, True)])
@pytest.mark.parametrize("mode", ["train", "generate", "skip"])
def test_a_scarce_batch_is_trained_on_or_skipped(share, scarce, mode):
    drawn = batch(**LETTERS)
    config = settings(min_informative=share, scarce=mode if share else "train")
    curated = curate(drawn, config, SuccessBuffer(0), step=1)
    assert curated.informative == 2
    assert curated.scarce == scarce
    skipped = scarce and mode == "skip"
    assert curated.trained == ([] if skipped else [0, 5])
    assert bool(curated.samples) != skipped
    assert group_facts(curated)["groups/scarce"] == scarce
    assert group_facts(curated)["update/skipped"] == skipped


def test_groups_of_further_draws_fill_the_places_of_one_step():
    drawn = batch(**{f"{name}{draw}": letters for draw in range(2) for name, letters in LETTERS.items()})
    curated = curate(drawn, settings(substitution=True), SuccessBuffer(0), step=1)
    assert len(curated.trained) == 6
    assert set(curated.trained) == {0, 5, 6, 11}
    over = curate(drawn, settings(3, substitution=True), SuccessBuffer(0), step=1)
    assert over.trained == [0, 5, 6, 11], "nothing informative is thrown away"


def test_pass_rates_count_every_drawn_group_and_no_lost_verdict():
    pass_rates = PassRates()
    pass_rates.add_groups(batch(**LETTERS))
    assert pass_rates.counts == {"a": (2, 4), "b": (4, 4), "c": (0, 4), "d": (0, 4), "e": (1, 1), "f": (1, 3)}


def with_rewards(group, rewards, cut=()):
    """The group with shaped rewards, and the responses of these numbers cut off."""
    rollouts = [replace(one, verdict=replace(one.verdict, reward=reward)) for one, reward in zip(group.rollouts, rewards, strict=True)]
    for s in cut:
        rollouts[s] = replace(rollouts[s], rollout=replace(rollouts[s].rollout, finish_reason="length"))
    return replace(group, rollouts=tuple(rollouts))


def test_rescue_looks_for_what_was_solved_whatever_else_earns_a_reward(successes):
    drawn = [with_rewards(group("c", "--0-"), [-1.0, -0.5, -1.0, -0.5]), with_rewards(group("b", "-+--"), [-0.5, 0.5, -1.0, -1.0])]
    curated = curate(drawn, settings(2), successes, step=9)
    facts = group_facts(curated)
    assert (facts["groups/informative"], facts["groups/all_wrong"], facts["rescue/groups"]) == (2, 1, 1)
    [put_in] = curated.rescued
    rewards = [scored.verdict.reward for scored in curated.groups[0].rollouts]
    assert rewards[put_in.rollout.sample] == 1.0, "of its own verdict"
    assert curated.advantages[0] == pytest.approx(advantages(rewards))
    assert curated.trained == [0, 1]


@pytest.mark.parametrize("truncated", ["train", "mask", "penalise"])
def test_truncated_responses(truncated):
    drawn = [with_rewards(group("a", "+-+-"), [1.0, 0.0, 1.0, 0.0], cut=[1, 2]), with_rewards(group("b", "----"), [0.0] * 4, cut=[3])]
    drawn.append(with_rewards(group("c", "+-++"), [1.0, 0.0, 1.0, 1.0], cut=range(4)))
    curated = curate(drawn, settings(3, truncated=truncated, truncation_penalty=0.5), SuccessBuffer(0), step=1)
    found = [round(sample.advantage, 5) for sample in curated.samples]
    if truncated == "penalise":
        rewards = [[1.0, -0.5, 0.5, 0.0], [0.0, 0.0, 0.0, -0.5], [0.5, -0.5, 0.5, 0.5]]
        assert found == [round(one, 5) for row in rewards for one in advantages(row)]
        assert group_facts(curated)["groups/all_wrong"] == 1
        return
    whole = [advantages([1.0, 0.0, 1.0, 0.0]), advantages([1.0, 0.0, 1.0, 1.0])]
    expected = [whole[0][0], whole[0][3]] if truncated == "mask" else [*whole[0], *whole[1]]
    assert found == [round(one, 5) for one in expected], "the mean is that of all four"
    assert curated.trained == ([0] if truncated == "mask" else [0, 2])
    only = curate(drawn[2:], settings(1, truncated=truncated), SuccessBuffer(0), step=1)
    assert group_facts(only)["update/skipped"] == (truncated == "mask")


def test_kl_lowers_rewards_and_makes_no_group_informative(successes):
    drawn = batch(a="+--+", b="++++", c="-x0-")
    config = settings(3, substitution=True, kl="k1", kl_coefficient=0.1)
    curated = curate(drawn, config, successes, step=9)
    assert len(curated.trained) == 3
    counted = counted_samples(curated)
    assert [sample.rollout is scored.rollout for sample, scored in zip(counted, curated.groups[0].rollouts, strict=False)] == [True] * 4
    assert len(counted) == 7, "a group without a gradient and a lost response are not scored, copies once"
    kl = np.array([0.5, -0.25, 3.0, 0.0, 1.0, 2.0, 4.0])
    lowered = with_kl(curated, kl, config.algorithm)
    rewards = np.array([scored.verdict.reward for p in (0, 2) for scored in curated.groups[p].rollouts if not scored.verdict.lost])
    expected = advantages((rewards - 0.1 * kl)[:4]) + advantages((rewards - 0.1 * kl)[4:])
    assert lowered.advantages[lowered.counted] == pytest.approx(expected)
    assert not lowered.advantages[~lowered.counted].any()
    assert lowered.trained == curated.trained
    for p, of_group in ((0, expected[:4]), (2, expected[4:])):
        found = [one.advantage for one in lowered.samples if one.prompt_tokens == drawn[p].prompt.tokens]
        assert found == pytest.approx(of_group * curated.trained.count(p))


@pytest.mark.parametrize("wrong", [{"rescue": 1, "correction": "off"}, {"scarce": "skip"}, {"scarce": "generate"}])
def test_settings_that_would_mislead_are_refused(wrong):
    with pytest.raises(ValueError, match="set "):
        AlgorithmConfig(**wrong)
