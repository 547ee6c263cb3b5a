"""Which part of a response is its final answer?

- Only what follows the last `</think>` counts. A response without it has no answer where thinking is expected.
- There, the `\\boxed{}` or `\\fbox{}` that closes last counts, braces balanced; one that never closes is none.
- Empty boxes are passed over: they are echoes of "put your answer within \\boxed{}".
- `\\boxed 5` without braces holds what stands before the next white space or `$`; a box with braces anywhere goes first.
"""

from __future__ import annotations

import re

from polaris.reward.verdict import Verdict

END_OF_THINKING = "</think>"
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$]+)")


def final_answer(response: str, require_thinking: bool) -> str | Verdict:
    """The text of the final answer, or a verdict "no_answer" that says why there is none."""
    _, thought, final = response.rpartition(END_OF_THINKING)
    if require_thinking and not thought:
        return Verdict("no_answer", "no </think>")
    spans = boxes(final)
    filled = next((text for text in (final[slice(*span)] for span in reversed(spans)) if text.strip()), None)
    if filled is None and not spans:
        filled = next(reversed(_BARE_BOX.findall(final)), None)
    if filled is None:
        return Verdict("no_answer", "empty \\boxed{}" if spans else "no \\boxed{}")
    return filled


def boxes(text: str) -> list[tuple[int, int]]:
    """Where the content of each box begins and ends, in the order in which they close. Linear in the text's length."""
    opened: list[int | None] = []
    found = []
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and token[0] != "\\{":
            opened.append(None if token[0] == "{" else token.end())
        elif token[0] == "}" and opened and (start := opened.pop()) is not None:
            found.append((start, token.start()))
    return found
