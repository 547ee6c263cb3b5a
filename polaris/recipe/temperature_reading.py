"""What the temperature probe reads at one temperature, and how further responses are added to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polaris.algorithm.diversity import distinct_tokens, distinct_words, of_pairs, word_grams_per_token_gram
from polaris.algorithm.rates import wilson_interval
from polaris.rollout.types import Sampling
from polaris.run.record import response_facts
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, draw_groups
from polaris.sampling.guards import stop_if_grading_fails, stop_without_answers
from polaris.types import Group, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One temperature: avg@n with its 95 % interval over prompts, and diversities (`polaris.algorithm.diversity`)."""

    temperature: float
    samples: int
    """Responses to each prompt, the n of avg@n."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    words: float
    tokens: float
    length_mean: float
    clip_ratio: float
    per_prompt: list[float]
    """avg@n of each prompt."""
    word_grams: float
    """4-grams of words per 4-gram of tokens."""

    @property
    def responses(self) -> int:
        return self.samples * len(self.per_prompt)

    @property
    def sampled_tokens(self) -> int:
        return round(self.responses * self.length_mean)


def measure(context: SamplingContext, prompts: Sequence[Prompt], sampling: Sampling, first: int, samples: int) -> Reading:
    """Draw `samples` responses to each prompt, numbered from `first` on, grade and count; the same reading on every rank.

    Raises `GenerationInterrupted`, `GradingFailed` and `NoAnswers`.
    """
    draw = Draw(prompts=prompts, samples=samples, sampling=sampling, stream="probe", step=0, first=first)
    with context.console.phase(f"temperature {sampling.temperature:g}", in_step=False):
        groups = draw_groups(context, draw)
        stop_if_grading_fails(groups, context.config.folder, writes=context.world.is_main)
        if context.engine.version == 0 and sampling.temperature <= 1 and not first:  # hotter text may lose its form
            stop_without_answers(context, groups, f"temperature {sampling.temperature:g}", sampling.max_tokens)
        # Rank 0 has the texts and tokens.
        return context.world.gather([count(groups, sampling.temperature)] if context.world.is_main else [])[0]


def count(groups: Sequence[Group], temperature: float) -> Reading:
    """The reading of the groups of all prompts."""
    everything = [scored for group in groups for scored in group.rollouts]
    facts = response_facts(everything, "response")
    texts, tokens = [scored.text for scored in everything], [scored.rollout.tokens for scored in everything]
    return _reading(
        temperature=temperature,
        samples=len(groups[0].rollouts),
        per_prompt=np.array([np.mean([float(scored.verdict.kind == "correct") for scored in group.rollouts]) for group in groups]),
        words=float(np.mean([of_pairs([scored.text for scored in group.rollouts], distinct_words) for group in groups])),
        tokens=float(np.mean([of_pairs([scored.rollout.tokens for scored in group.rollouts], distinct_tokens) for group in groups])),
        length_mean=facts["response/length_mean"],
        clip_ratio=facts["response/clip_ratio"],
        word_grams=word_grams_per_token_gram(texts, tokens),
    )


def together(before: Reading, after: Reading) -> Reading:
    """The reading of the responses of both, of the same prompts at the same temperature."""

    def mean(name: str, weights: tuple[int, int]) -> float:
        return float(np.average([getattr(before, name), getattr(after, name)], weights=weights))

    samples, pairs = (before.samples, after.samples), (before.samples // 2, after.samples // 2)
    return _reading(
        temperature=before.temperature,
        samples=sum(samples),
        per_prompt=np.average([before.per_prompt, after.per_prompt], axis=0, weights=samples),
        **{name: mean(name, pairs) for name in ("words", "tokens")},
        **{name: mean(name, samples) for name in ("length_mean", "clip_ratio", "word_grams")},
    )


def _reading(*, temperature: float, samples: int, per_prompt: np.ndarray, **facts: float) -> Reading:
    low, high = wilson_interval(per_prompt)
    return Reading(
        temperature=temperature,
        samples=samples,
        accuracy=float(per_prompt.mean()),
        accuracy_low=low,
        accuracy_high=high,
        per_prompt=per_prompt.tolist(),
        **facts,
    )
