"""How long responses are: log-normal, alike within a prompt, or measured in the rollouts of a run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np


class Lengths(Protocol):
    """Tokens of the responses to prompts, which are numbered from 0 on."""

    def drawn(self, prompt: int, version: int) -> Sequence[int]:
        """Tokens of each response to a prompt that begins under the weights of `version`; drawn anew under other weights."""
        ...

    def expected(self, prompt: int) -> float:
        """Mean tokens of the responses of an earlier epoch: what `PromptStatistics.usual_lengths` knows."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """Log-normal with this median, in tokens, and this standard deviation of the logarithm; a response of `cap` tokens is cut off.

    `alike` is the share of the logarithm's variance between prompts; the rest is between the responses to one prompt.
    """

    median: float
    deviation: float
    cap: int
    alike: float
    samples: int
    seed: int

    def drawn(self, prompt: int, version: int) -> Sequence[int]:
        return _log_normal(self, prompt, version)

    def expected(self, prompt: int) -> float:
        return float(np.mean(self.drawn(prompt, -1)))


@cache
def _log_normal(lengths: LogNormal, prompt: int, version: int) -> list[int]:
    own = np.random.default_rng([lengths.seed, prompt]).normal() * lengths.alike**0.5
    others = np.random.default_rng([lengths.seed, prompt, version + 2]).normal(size=lengths.samples) * (1 - lengths.alike) ** 0.5
    tokens = lengths.median * np.exp(lengths.deviation * (own + others))
    return [int(number) for number in np.clip(np.round(tokens), 1, lengths.cap)]


@dataclass(frozen=True)
class Measured:
    """Groups of lengths [groups, samples] of a run, drawn with replacement for each prompt, `scale` times as long; `cap` cuts them off.

    Under other weights, and in the earlier epoch, a prompt has lengths drawn with replacement from its own.
    """

    groups: tuple[tuple[int, ...], ...]
    samples: int
    scale: float
    cap: int
    seed: int

    def drawn(self, prompt: int, version: int) -> Sequence[int]:
        return _resampled(self, prompt, version)

    def expected(self, prompt: int) -> float:
        return float(np.mean(self.drawn(prompt, -1)))


@cache
def _resampled(lengths: Measured, prompt: int, version: int) -> list[int]:
    group = lengths.groups[np.random.default_rng([lengths.seed, prompt]).integers(len(lengths.groups))]
    chosen = np.random.default_rng([lengths.seed, prompt, version + 2]).choice(group, lengths.samples)
    return [int(number) for number in np.clip(np.round(chosen * lengths.scale), 1, lengths.cap)]


def read_groups(folder: Path) -> tuple[tuple[int, ...], ...]:
    """The lengths in a run's `rollouts/*.jsonl`, by step and prompt; groups of one response say nothing about likeness and are left out."""
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for path in sorted((folder / "rollouts").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            groups[row["step"], row["prompt"]].append(row["length"])
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def likeness(groups: Sequence[Sequence[int]]) -> tuple[float, float]:
    """(standard deviation of the logarithm, share of its variance between prompts) of measured lengths: one-way analysis of variance."""
    logs = [np.log(group) for group in groups]
    within = float(np.mean([group.var(ddof=1) for group in logs]))
    means = np.array([group.mean() for group in logs])
    between = max(0.0, float(means.var(ddof=1)) - within * float(np.mean([1 / len(group) for group in logs])))
    return (within + between) ** 0.5, between / (within + between)
