"""Which prompts a step begins, beside those that it goes on with: never one twice, and never more than there are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scripted import for_training, on_ranks, prompts_named

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.recipe import CurriculumConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.data.prompt_statistics import PromptStatistics
from polaris.data.sampler import open_sampler
from polaris.sampling.carried import Started

pytestmark = pytest.mark.timeout(60)
CONFIG = RunConfig(
    rollout=RolloutConfig(samples_per_prompt=2, max_response_tokens=32, oversample=1.5),
    trainer=TrainerConfig(prompts_per_step=4, steps=9),
    algorithm=AlgorithmConfig(scarce="generate", min_informative=1.0, max_draws=9),
)
CURRICULUM = CurriculumConfig(target=(0.5, 0.5))
NAMES = "abcdefghijklmn"


def steps(context, teaches, count, carried=(), cursor=None, names=NAMES):
    """The names of the groups of `count` steps, and of what each leaves."""
    prompts = prompts_named(names)
    source, config = for_training(context, prompts=prompts).source, context.config
    sampler = open_sampler(prompts, config, PromptStatistics(10))
    if cursor is not None:
        sampler.restore(cursor)
    source = replace(source, sampler=sampler, teaching=lambda groups, step: np.array([teaches(group.prompt.id) for group in groups]))
    source.carried.started = tuple(Started(prompt_id=name, step=1) for name in carried)
    found = []
    for step in range(2, 2 + count):
        groups = source.next(step, 1.0)
        found.append(([group.prompt.id for group in groups], [one.prompt_id for one in source.carried.started]))
    return found


def on_one_rank(config, *given, **named):
    (found,), _ = on_ranks(config, lambda context: steps(context, *given, **named))
    if isinstance(found, Exception):
        raise found
    return found


@pytest.mark.parametrize("curriculum", [CurriculumConfig(), CURRICULUM], ids=["epochs", "target"])
@pytest.mark.parametrize("carried", ["", "ab"])
def test_where_too_few_teach_a_step_draws_on_until_all_are_drawn_once(curriculum, carried):
    config = replace(CONFIG, curriculum=curriculum)
    for taken, left in on_one_rank(config, lambda name: name in "am", 3, carried):
        assert len(taken) == len(set(taken))
        assert left == []
        assert set(taken) <= set(NAMES)
    (first, _), *_ = on_one_rank(config, lambda name: name in "am", 1, carried)
    assert len(first) == 6 + 4 + 4 if curriculum.target else len(first) >= 6 + 4
    assert first[: len(carried)] == list(carried)


def test_prompts_that_are_gone_on_with_are_not_drawn_again_in_a_further_draw():
    config = replace(CONFIG, curriculum=CURRICULUM, trainer=TrainerConfig(prompts_per_step=2, steps=9))
    for seed in range(20):
        ((taken, _),) = on_one_rank(replace(config, seed=seed), lambda name: False, 1, "ab", names="abcdefg")
        assert sorted(taken) == sorted("abcdefg")


def test_where_too_few_prompts_are_left_beside_those_of_the_step_it_ends():
    """The epoch has a whole batch left, of which some are those that the step goes on with."""
    config = replace(CONFIG, trainer=TrainerConfig(prompts_per_step=3, steps=9), rollout=replace(CONFIG.rollout, oversample=4 / 3))
    for start in range(3):
        ((taken, _),) = on_one_rank(config, lambda name: False, 1, "ab", {"epoch": 1, "cursor": start}, names="abcdef")
        assert len(taken) == len(set(taken)) == 4


def test_what_is_left_over_comes_first_and_once():
    found = on_one_rank(CONFIG, lambda name: True, 6)
    for (_, left), (taken, _) in pairwise(found):
        assert len(left) == 2
        assert taken[:2] == left
    assert all(len(taken) == 4 for taken, _ in found)
    drawn = [name for taken, _ in found for name in taken] + found[-1][1]
    assert sorted(drawn[: len(NAMES)]) == sorted(NAMES), "an epoch"


def test_the_last_step_leaves_nothing():
    found = on_one_rank(CONFIG, lambda name: True, 8)
    (_, left), (last, nothing) = found[-2:]
    assert len(left) == 2
    assert last[:2] == left
    assert (len(last), nothing) == (4, [])
