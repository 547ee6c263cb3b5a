"""Evaluation sets by name: those of the paper, and those that other papers report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set's place on the Hugging Face hub, and how many samples are drawn of each problem: the paper's number, or for a set that the
    paper has not, that of its sets of about the same size.

    `gated` sets are given only to accounts that have accepted their terms. `choices`: a response is graded by the letter that it chooses.
    """

    hub: str
    split: str
    samples: int
    subset: str | None = None
    gated: bool = False
    choices: bool = False


NAMED_SETS = {
    "aime24": NamedSet("HuggingFaceH4/aime_2024", "train", 32),
    "aime25": NamedSet("math-ai/aime25", "test", 32),
    "amc23": NamedSet("AI-MO/aimo-validation-amc", "train", 8),
    "minerva": NamedSet("math-ai/minervamath", "test", 4),
    "olympiad": NamedSet("knoveleng/OlympiadBench", "train", 4),
    "aime26": NamedSet("MathArena/aime_2026", "train", 32),
    "hmmt25": NamedSet("MathArena/hmmt_feb_2025", "train", 32),
    "beyondaime": NamedSet("ByteDance-Seed/BeyondAIME", "test", 8),
    "math500": NamedSet("HuggingFaceH4/MATH-500", "test", 4),
    "gpqa-diamond": NamedSet("Idavidrein/gpqa", "train", 8, subset="gpqa_diamond", gated=True, choices=True),
}


def spelled(path: str) -> str:
    """The name of the set that a path means, as it is written here: papers write AIME-2026 and MATH_500. Else the path as it is."""
    name = _letters(path)
    return path if Path(path).expanduser().exists() else next((known for known in NAMED_SETS if _letters(known) == name), path)


def _letters(name: str) -> str:
    """Without case, spaces, hyphens and the century."""
    return re.sub(r"20(\d\d)$", r"\1", re.sub(r"[-_ ]", "", name.casefold()))


def instead_of_the_hub(name: str) -> str:
    """For a refusal: what else a set can be read from."""
    known = NAMED_SETS[name]
    letters = "Question, Correct Answer and Incorrect Answer 1 to 3 (or prompt and answer, a letter)"
    columns = letters if known.choices else "problem and answer"
    gate = f"accept the terms of {known.hub} on the hub and log in there, or " if known.gated else ""
    return (
        f"{gate}without a network, write {name}.parquet, .json or .jsonl with the columns {columns}, and give the file in the place of the "
        "name (`polaris eval` finds it in a --data-folder, too)"
    )
