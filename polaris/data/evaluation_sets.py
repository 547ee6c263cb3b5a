"""The problem texts of sets that training must not have seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polaris.data.normalise import without_instruction
from polaris.data.overlap import Match, find_matches
from polaris.data.rows import identity, read_messages, user_text
from polaris.data.sources import FILE_FORMATS, is_set, read_rows
from polaris.embedded import resolve
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """`texts` lack the instruction that the set appends; `ids` are those of the rows, else row numbers from 1."""

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]


def read_evaluation_sets(paths: Sequence[str], split: str) -> list[EvaluationSet]:
    """The sets at the paths: files, dataset names (their `split`), or folders with all their files. Answers are not needed.

    Raises `ValueError` for a missing or unreadable set, a folder without sets, and a row without a problem.
    """
    return [_read(path, split) for given in paths for path in _expand(given)]


def matches_by_set(texts: Sequence[str], sets: Sequence[EvaluationSet]) -> list[list[Match]]:
    """For each set its matches with `texts` (from `without_instruction`); `there` is a position in that set."""
    origins = [(number, position) for number, one in enumerate(sets) for position in range(len(one.texts))]
    found: list[list[Match]] = [[] for _ in sets]
    for match in find_matches(texts, [text for one in sets for text in one.texts]) if sets else ():
        number, position = origins[match.there]
        found[number].append(replace(match, there=position))
    return found


def _expand(given: str) -> Iterator[str]:
    path = resolve(given)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        yield path
        return
    files = sorted(file for file in folder.rglob("*") if is_set(file) and file.is_file())
    if not files:
        raise Refused(f"{given} holds no {', '.join(FILE_FORMATS)} file; name a file, or a folder with prompt sets")
    yield from map(str, files)


def _read(path: str, split: str) -> EvaluationSet:
    ids, texts = [], []
    for source, row in read_rows(path, split):
        ids.append(identity(row) or source.rpartition(":")[2])
        texts.append(user_text(read_messages(row, source)))
    return EvaluationSet(name=path, ids=tuple(ids), texts=tuple(without_instruction(texts)))
