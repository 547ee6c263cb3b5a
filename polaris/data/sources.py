"""Rows of a prompt set: a .parquet, .json or .jsonl file, or a Hugging Face dataset."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polaris.errors import Refused
from polaris.files import write_atomically

FILE_FORMATS = (".parquet", ".json", ".jsonl")


def is_set(path: Path) -> bool:
    """Whether a name ends like that of a prompt set, in either case."""
    return path.suffix.lower() in FILE_FORMATS


def read_rows(path: str, split: str) -> Iterator[tuple[str, dict]]:
    """Yield (`path:row`, row). Rows count from 1; those of a .jsonl file by their line.

    `path` is a file, a folder that `datasets` understands, the name of one of the paper's evaluation sets (with a split of its own),
    or a dataset name on the Hugging Face hub, optionally `name@revision`; `split` matters only for folders and hub names.
    Raises `ValueError` for a missing, unreadable or empty set.
    """
    empty = True
    for number, row in _open(path, split):
        if not isinstance(row, dict):
            raise Refused(f"{path}:{number} is a {type(row).__name__}, not an object; every row must be an object with named columns")
        yield f"{path}:{number}", row
        empty = False
    if empty:
        raise Refused(f"{path} has no rows; give a prompt set with at least one problem")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows as a .jsonl file in one move. Half of a surrogate pair, legal in JSON but not Unicode, is written as its escape."""
    lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    write_atomically(path, lines.encode(errors="backslashreplace"))


def _open(path: str, split: str) -> Iterator[tuple[int, Any]]:
    """(number, row) of every row."""
    file = Path(path).expanduser()
    if file.is_file() and not is_set(file):
        raise Refused(f"{path} has an unknown format; convert it to one of {', '.join(FILE_FORMATS)}")
    if not file.exists() and _looks_local(path):
        raise Refused(f"{path} does not exist (looked for {file.absolute()}); correct the path, or give a Hugging Face dataset name")
    if not file.exists() and path in NAMED_SETS:
        return enumerate(_read_dataset(path, NAMED_SETS[path].hub, NAMED_SETS[path].split), start=1)
    if not file.is_file():
        return enumerate(_read_dataset(path, str(file) if file.exists() else path, split), start=1)
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        return _read_jsonl(file)
    return enumerate(_read_parquet(file) if suffix == ".parquet" else _read_json(file), start=1)


def _looks_local(path: str) -> bool:
    return is_set(Path(path)) or path.startswith(("/", ".", "~")) or path.count("/") > 1


def _read_parquet(file: Path) -> Iterator[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise Refused(f"{file} is not a readable parquet file ({error}); download or write it again") from error


def _read_json(file: Path) -> Iterator[Any]:
    rows = _parse_json(file, "".join(_lines(file)), first_line=1)
    if not isinstance(rows, list):
        raise Refused(f"{file} holds a {type(rows).__name__}, not a list of objects; wrap the rows in [...] or use .jsonl")
    yield from rows


def _read_jsonl(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            yield number, _parse_json(file, line.strip(), first_line=number)


def _lines(file: Path) -> Iterator[str]:
    """Lines with their ends. In JSON only `\\n` ends a line, not the other line ends of Unicode."""
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            yield from lines
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{file} is not readable as UTF-8 text ({error}); write it again as UTF-8") from error


def _parse_json(file: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        escape = ' in JSON a backslash is written twice: "\\\\frac";' if "escape" in error.msg else ""
        raise Refused(f"{file}, line {line}: not valid JSON ({error.msg});{escape} correct that line or write the file again") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"{file}, line {first_line} or below: Python cannot hold this JSON ({error}); write the file again") from error


def _read_dataset(path: str, location: str, split: str) -> Iterator[dict]:
    import datasets

    name, _, revision = location.partition("@")
    try:
        yield from datasets.load_dataset(name, split=split, revision=revision or None)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{path}, split {split!r}: `datasets` cannot load it ({error}); check name, split, revision and network, or give a local file"
        ) from error


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


_OBJECTS = re.compile(r"\s*(?:\[\s*)?\{\s*[\"']")


def nested(value: Any) -> Any:
    """The object or list of objects that a text holds, as JSON or as Python prints it; any other value unchanged."""
    if not isinstance(value, str) or not _OBJECTS.match(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value
