"""All prompts of a configuration: of one set or several, and those held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polaris.config.recipe import DifficultyConfig
from polaris.config.schema import RunConfig
from polaris.data.evaluation_sets import EvaluationSet, read_evaluation_sets
from polaris.data.gold import Check
from polaris.data.prompts import HoldOut, PromptSet, hold_out, load_prompts
from polaris.data.reading import PromptSource, held_out_source, training_sources
from polaris.embedded import resolve
from polaris.reward.grade import ungradable_reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_training(config: RunConfig, tokenizer: PreTrainedTokenizerBase, check: Check = ungradable_reason) -> PromptSet:
    """The prompts of all sets of `[data]`, one set after the other; with `eval.fraction`, a part of each set is held out.

    Raises `ValueError` as `load_prompts` does.
    """
    unseen = read_evaluation_sets(config.data.decontaminate, config.eval.split)
    held = None if config.eval.fraction is None else hold_out(config.eval.fraction, config.seed)
    return _joined([_load(config, one, tokenizer, check, unseen, config.difficulty, held) for one in training_sources(config.data)])


def load_held_out(
    config: RunConfig, training: PromptSet, tokenizer: PreTrainedTokenizerBase, check: Check = ungradable_reason
) -> PromptSet | None:
    """The prompts of `eval.path`, or those that were held out of `training`; None where the configuration has neither."""
    source = held_out_source(config)
    if source is not None:
        return _load(config, source, tokenizer, check)
    held = training.held_out
    return PromptSet(prompts=held, total=len(held), repeated=0, rejected=(), overlapping=0, too_long=0) if held else None


def _load(
    config: RunConfig,
    source: PromptSource,
    tokenizer: PreTrainedTokenizerBase,
    check: Check,
    evaluation_sets: Sequence[EvaluationSet] = (),
    difficulty: DifficultyConfig | None = None,
    held: HoldOut | None = None,
) -> PromptSet:
    return load_prompts(
        resolve(source.path),
        split=source.split,
        tokenizer=tokenizer,
        max_prompt_tokens=config.data.max_prompt_tokens,
        prompt_suffix=config.data.prompt_suffix,
        chat_template_options=config.data.chat_template_options,
        strict=config.data.strict,
        evaluation_sets=evaluation_sets,
        difficulty=difficulty,
        reading=source.reading,
        check=check,
        name=source.name,
        hold_out=held,
    )


def _joined(sets: Sequence[PromptSet]) -> PromptSet:
    return PromptSet(
        prompts=tuple(prompt for one in sets for prompt in one.prompts),
        held_out=tuple(prompt for one in sets for prompt in one.held_out),
        total=sum(one.total for one in sets),
        repeated=sum(one.repeated for one in sets),
        rejected=tuple(row for one in sets for row in one.rejected),
        overlapping=sum(one.overlapping for one in sets),
        too_long=sum(one.too_long for one in sets),
    )
