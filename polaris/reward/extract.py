"""Finding the final answer in a response.

- Only what follows the last `</think>` counts. A response without it has no answer where thinking is expected, and nothing
  behind a `<think>` that was never closed counts anywhere.
- Of that, the last 50,000 characters are searched: a solution ends with its answer.
- There, the `\\boxed{}` or `\\fbox{}` that closes last counts, with balanced braces; a box that never closes does not count.
- Boxes separated only by a comma, a semicolon, "and" or "or" are one list: `\\boxed{1}, \\boxed{2}` claims both.
- Empty boxes are passed over: they are echoes of "put your answer within \\boxed{}".
- `\\boxed 5` without braces ends before the next white space or `$`; it counts only if no box has braces.
"""

from __future__ import annotations

import re

from polaris.types import Verdict

SEARCHED_CHARS = 50_000
START_OF_THINKING, END_OF_THINKING = "<think>", "</think>"
NO_END, UNFINISHED, NO_BOX, EMPTY_BOX = "no </think>", "unfinished thinking", "no \\boxed{}", "empty \\boxed{}"
BOXED, NO_FORM = "boxed", "no answer in the form of reward.answer"
"""Why a response has no answer."""
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s+|(?=\d))([^\s{}$]+)")
_GAP = r"(?:[\s$~]|\\[()\[\],;: ]|\\q?quad(?![a-z]))*"
_WORD = r"(?:and|or|\\(?:text|mbox)\{\s*(?:and|or)\s*\})"
_JOINT = re.compile(rf"{_GAP}(?:[,;]{_GAP}(?:{_WORD}{_GAP})?|{_WORD}{_GAP})\\(?:boxed|fbox)\s*\{{")
_LONGEST_JOINT = 80
_INK = re.compile(r"\S")


def final_answer(response: str, require_thinking: bool, *, joined: bool = True) -> str | Verdict:
    """The text of the final answer, or a verdict "no_answer" with the reason. `joined` False: only the last box."""
    part = final_part(response, require_thinking)
    if isinstance(part, Verdict):
        return part
    final, unfinished = part
    spans = boxes(final)
    filled = [span for span in spans if _INK.search(final, *span)]
    if filled:
        return _list(final, filled) if joined else final[slice(*filled[-1])]
    bare = _BARE_BOX.findall(final)
    if bare and not spans:
        return bare[-1]
    return Verdict("no_answer", UNFINISHED if unfinished else EMPTY_BOX if spans else NO_BOX)


def final_part(response: str, require_thinking: bool) -> tuple[str, bool] | Verdict:
    """The text in which an answer is looked for, and whether thinking that never ended stands behind it; or the verdict "no_answer"."""
    _, thought, final = response.rpartition(END_OF_THINKING)
    if require_thinking and not thought:
        return Verdict("no_answer", NO_END)
    final, unfinished, _ = final.partition(START_OF_THINKING)
    return final[-SEARCHED_CHARS:], bool(unfinished)


def boxes(text: str, braces: re.Pattern[str] = _BRACES) -> list[tuple[int, int]]:
    """Where the content of each box begins and ends, in the order in which they close. Linear in the text's length.

    `braces` finds what opens a box, escapes, and braces.
    """
    opened: list[int | None] = []
    found = []
    for token in braces.finditer(text):
        if token[0].endswith("{") and token[0] != "\\{":
            opened.append(None if token[0] == "{" else token.end())
        elif token[0] == "}" and opened and (start := opened.pop()) is not None:
            found.append((start, token.start()))
    return found


def _list(text: str, spans: list[tuple[int, int]]) -> str:
    """The last box and those that a conjunction joins to it."""
    first = len(spans) - 1
    while first and _joint(text, spans[first - 1][1] + 1, spans[first][0]):
        first -= 1
    return ", ".join(text[slice(*span)] for span in spans[first:])


def _joint(text: str, start: int, end: int) -> bool:
    return start < end <= start + _LONGEST_JOINT and bool(_JOINT.fullmatch(text, start, end))
