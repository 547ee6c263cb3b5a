"""Rows of questions with several options, as GPQA has them, to a prompt with letters and the letter of the right one."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

QUESTION, RIGHT = "Question", "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
LETTERS = "ABCD"


def with_letters(row: dict[str, Any]) -> dict[str, Any]:
    """The row with `prompt`, `answer` (a letter) and `id` if it is a question with options; else the row itself.

    The options' order is that of hashes of question and option: the same on every machine and in every version, and not the row's,
    whose first option is always the right one.

    >>> with_letters({"Question": "2+2?", "Correct Answer": "4", "Incorrect Answer 1": "3", "Incorrect Answer 2": "5",
    ...               "Incorrect Answer 3": "22"})["answer"]
    'B'
    """
    texts = [row.get(column) for column in (QUESTION, RIGHT, *WRONG)]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return row
    question, right, *wrong = (str(text).strip() for text in texts)
    options = sorted((right, *wrong), key=lambda option: blake2b(f"{question}\n{option}".encode(errors="replace")).digest())
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True))
    prompt = f"{question}\n\n{listed}\n\nChoose one option; the final answer is its letter."
    named = {"id": row["Record ID"]} if row.get("Record ID") is not None else {}
    return {**row, **named, "prompt": prompt, "answer": LETTERS[options.index(right)]}
