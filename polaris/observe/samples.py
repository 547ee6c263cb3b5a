"""A few full rollouts of every step, for people to read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.files import write_atomically
from polaris.types import VerdictKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"
_LONGEST_RUN = 64
"""Tokens without a whole character that are decoded together; in a longer run they are garbage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSample:
    """One judged rollout as text.

    `answer` is what was graded, if anything; `length` counts response tokens; `logprobs` [length] are the engine's, in nats, and
    `token_chars` [length] the characters of the response that each token adds.
    """

    prompt: str
    response: str
    ground_truth: str
    verdict: VerdictKind
    answer: str | None
    reason: str
    reward: float
    process: float | None = None
    """The part of `reward` that is a process reward, where there is one."""
    advantage: float
    finish_reason: str
    length: int
    version: int
    logprobs: tuple[float, ...] | None = None
    token_chars: tuple[int, ...] | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    """The chat behind the prompt."""


class RolloutRecorder:
    """Writes `<run folder>/rollouts/step-000010.jsonl`; a repeated step replaces its file."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "rollouts"

    def write(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Write a step's samples; nothing where there are none."""
        if samples:
            lines = [json.dumps({"step": step, **_row(sample)}) + "\n" for sample in samples]
            write_atomically(self._folder / f"step-{step:06d}.jsonl", "".join(lines).encode())


def choose(step: int, verdicts: Sequence[VerdictKind], count: int) -> list[int]:
    """Indices of up to `count` rollouts, correct and wrong in turn, half of each where there are enough; a function of the arguments."""
    shuffled = sorted(range(len(verdicts)), key=lambda index: (zlib.crc32(f"{step}/{index}".encode()), index))
    correct = [index for index in shuffled if verdicts[index] == "correct"]
    wrong = [index for index in shuffled if verdicts[index] != "correct"]
    in_turn = chain.from_iterable(zip_longest(correct, wrong))
    return [index for index in in_turn if index is not None][:count]


def token_chars(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], text: str) -> tuple[int, ...] | None:
    """Number of characters of `text` that each token adds; they sum to its length. `text` is `tokens` without special tokens.

    Where a character is split over several tokens, the last of them adds it and the others add 0, as special tokens do. None if the
    tokenizer decodes a token differently on its own than within the text, so that nothing can be said.
    """
    kinds = list(dict.fromkeys(tokens))
    alone = dict(zip(kinds, tokenizer.batch_decode([[kind] for kind in kinds], skip_special_tokens=True), strict=True))
    pieces: list[str] = []
    start = 0
    for end, token in enumerate(tokens, start=1):
        if _INCOMPLETE in alone[token]:
            (whole,) = tokenizer.batch_decode([list(tokens[start:end])], skip_special_tokens=True)
            is_open = whole.endswith(_INCOMPLETE) and end - start < _LONGEST_RUN and end < len(tokens) and _INCOMPLETE in alone[tokens[end]]
            pieces.append("" if is_open else whole)
            start = start if is_open else end
        else:
            pieces.append(alone[token])
            start = end
    return tuple(map(len, pieces)) if "".join(pieces) == text else None


def _row(sample: RolloutSample) -> dict[str, object]:
    values = {one.name: getattr(sample, one.name) for one in fields(sample)}  # `asdict` would copy every number on its own
    row = {key: value for key, value in values.items() if value is not None or key == "answer"}
    if sample.logprobs is not None:
        row["logprobs"] = [round(logprob, 4) for logprob in sample.logprobs]
    return row
