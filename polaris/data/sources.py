"""Rows of a prompt set: a .parquet, .json or .jsonl file, a Hugging Face dataset, a task of reasoning-gym, or a
function of the user's."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polaris import doors
from polaris.config.names import nearest
from polaris.data.choices import with_letters
from polaris.data.gym import gym_rows
from polaris.data.named_sets import NAMED_SETS, instead_of_the_hub, spelled
from polaris.data.reading import PLAIN, Reading
from polaris.errors import Refused
from polaris.files import write_atomically
from polaris.stop import Stopped

FILE_FORMATS = (".parquet", ".json", ".jsonl")


def is_set(path: Path) -> bool:
    """Whether a name ends like that of a prompt set, in either case."""
    return path.suffix.lower() in FILE_FORMATS


def read_rows(path: str, split: str, reading: Reading = PLAIN) -> Iterator[tuple[str, dict]]:
    """Yield (`path:row`, row). Rows count from 1; those of a .jsonl file by their line.

    `path` is a file, a folder that `datasets` understands, the name of a known evaluation set (`named_sets`, with a split of its own),
    a dataset name on the Hugging Face hub, optionally `name@revision`, `reasoning_gym:task`, or `module:function`; `split` and the
    reading's subset matter only for folders and hub names, its options only for tasks and functions. A question with options gets letters
    (`polaris.data.choices`).
    Raises `ValueError` for a missing, unreadable or empty set.
    """
    path, empty = spelled(path), True
    name = doors.short(path)
    for number, row in _open(path, split, reading):
        if not isinstance(row, dict):
            raise Refused(f"{name}:{number} is a {type(row).__name__}, not an object; every row must be an object with named columns")
        yield f"{name}:{number}", with_letters(row)
        empty = False
    if empty:
        raise Refused(f"{name} has no rows; give a prompt set with at least one problem")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows as a .jsonl file in one move. Half of a surrogate pair, legal in JSON but not Unicode, is written as its escape."""
    lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    write_atomically(path, lines.encode(errors="backslashreplace"))


def _open(path: str, split: str, reading: Reading) -> Iterator[tuple[int, Any]]:
    """(number, row) of every row."""
    if doors.is_own(path):
        return enumerate(_call(path, reading), start=1)
    if doors.is_gym(path):
        return enumerate(gym_rows(path, reading), start=1)
    if reading.options:
        raise Refused(f"{reading.key}.options are arguments of a function or of a task of reasoning-gym, and {path} is none; remove them")
    file = Path(path).expanduser()
    if reading.subset is not None and (file.is_file() or path in NAMED_SETS):
        raise Refused(f"{reading.key}.subset = {reading.subset!r} is for a Hugging Face dataset, and {path} is none; remove it")
    if file.is_file() and not is_set(file):
        raise Refused(f"{path} has an unknown format; convert it to one of {', '.join(FILE_FORMATS)}")
    if not file.exists() and _looks_local(path):
        begins = "" if file.is_absolute() else "; paths begin in the folder where the command is typed"
        raise Refused(
            f"{path} does not exist (looked for {file.absolute()}{begins}); correct the path, or give a Hugging Face dataset name"
        )
    if not file.exists() and path in NAMED_SETS:
        known = NAMED_SETS[path]
        return enumerate(_read_dataset(path, known.hub, known.split, replace(PLAIN, subset=known.subset)), start=1)
    if not file.is_file():
        return enumerate(_read_dataset(path, str(file) if file.exists() else path, split, reading), start=1)
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


def _read_dataset(path: str, location: str, split: str, reading: Reading) -> Iterator[dict]:
    import datasets

    name, _, revision = location.partition("@")
    try:
        yield from datasets.load_dataset(name, reading.subset, split=split, revision=revision or None)
    except (OSError, ValueError) as error:
        if path in NAMED_SETS:
            why = " ".join(str(error).split())
            raise Refused(f"{path} could not be read from the hub ({location}: {why}); {instead_of_the_hub(path)}") from error
        subset = f", subset {reading.subset!r}" if reading.subset is not None else ""
        close = nearest(path, NAMED_SETS) if "/" not in path else None
        meant = f"did you mean {close!r}? If not, check" if close else "check"
        settable = "" if reading.key == "final" else f" {reading.key}.subset,"  # an evaluation names no subset
        raise Refused(
            f"{path}, split {split!r}{subset}: `datasets` cannot load it ({error}); {meant} name, split,{settable} revision and network, "
            "or give a local file"
        ) from error


def _call(name: str, reading: Reading) -> Iterator[Any]:
    """What the user's function yields. An error in it is refused with its last line, so that no rank waits for the others."""
    function = doors.load(name, f"{reading.key}.path")
    said = f"{reading.key}.path = {doors.short(name)!r}"
    if not callable(function):
        raise Refused(f"{said} is a {type(function).__name__}; name a function that yields rows")
    try:
        rows = function(**reading.options)
        if isinstance(rows, Iterable) and not isinstance(rows, str | bytes | Mapping):
            yield from map(_plain, rows)
            return
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f"{said} failed: {doors.last_line_of(error)}; mend that, or {reading.key}.options") from error
    raise Refused(f"{said} returned a {type(rows).__name__}; let it yield rows, or return a list of them")


def _plain(value: Any) -> Any:
    """A row with Python's own values in the place of numpy's and of tuples, as pandas and the like give them."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if isinstance(value, np.ndarray) else value.item()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


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


def lookup(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a column, or in a column within a column: `a.b`. None if it is not there."""
    if column in row or "." not in column:
        return row.get(column)
    first, _, rest = column.partition(".")
    inner = nested(row.get(first))
    return lookup(inner, rest) if isinstance(inner, dict) else None


def columns_of(row: dict[str, Any]) -> str:
    """The names of a row's columns, for messages; those within an object as `a.b`."""
    names = []
    for name, value in row.items():
        inner = nested(value)
        names += [f"{name}.{key}" for key in inner] if isinstance(inner, dict) and inner else [str(name)]
    return ", ".join(names) or "(none)"
