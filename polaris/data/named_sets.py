"""The paper's evaluation sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set's place on the Hugging Face hub, and how many samples the paper draws of each problem."""

    hub: str
    split: str
    samples: int


NAMED_SETS = {
    "aime24": NamedSet("HuggingFaceH4/aime_2024", "train", 32),
    "aime25": NamedSet("math-ai/aime25", "test", 32),
    "amc23": NamedSet("AI-MO/aimo-validation-amc", "train", 8),
    "minerva": NamedSet("math-ai/minervamath", "test", 4),
    "olympiad": NamedSet("knoveleng/OlympiadBench", "train", 4),
}
