"""The form in which a prompt asks for the answer. Boxes are graded, unless `reward.answer` says otherwise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from polaris.config.reward import RewardConfig
from polaris.data.normalise import INSTRUCTION

BOX, NOTHING = "\\boxed{}", "no form"
_FORMS = (
    (BOX, re.compile(r"\\f?box(?:ed)?\b|\bboxed\b|\bin a box\b", re.IGNORECASE)),
    ("<answer> tags", re.compile(r"</?answer>", re.IGNORECASE)),
    ('"####"', re.compile(r"####")),
    ('"Answer:"', re.compile(r"\banswer\b[\s*\"'`]*[:\uff1a]", re.IGNORECASE)),
    ('"the answer is"', re.compile(r"\b(?:the|final) answer is\b", re.IGNORECASE)),
)
REMEDY = f"data.prompt_suffix = {INSTRUCTION!r}"


def asked_for(text: str) -> str:
    """The form of the answer that a prompt asks for: `\\boxed{}` if it names a box, else the first other form it names, else "no form"."""
    return next((name for name, pattern in _FORMS if pattern.search(text)), NOTHING)


def forms(texts: Iterable[str]) -> Counter[str]:
    """How many of the prompts ask for each form."""
    return Counter(map(asked_for, texts))


def graded(reward: RewardConfig) -> str:
    """The form that a run grades: one of those above, or as `reward.answer` has it."""
    return {"boxed": BOX, "####": '"####"', "Answer:": '"Answer:"'}.get(reward.answer, repr(reward.answer))


def in_words(found: Counter[str]) -> str:
    """`"Answer:" 40, \\boxed{} 2`."""
    return ", ".join(f"{name} {number}" for name, number in found.most_common())


def findings(texts: Iterable[str]) -> Iterator[str]:
    """Lines for a report: what the prompts ask for, and a warning where some do not ask for a box."""
    found = forms(texts)
    yield f"answers asked for in: {in_words(found)}"
    missing = found.total() - found[BOX]
    if missing:
        yield f"warning: {missing} of {found.total()} prompts do not ask for a box, and only boxes are graded; train with {REMEDY}"
