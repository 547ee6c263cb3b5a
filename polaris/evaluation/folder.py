"""The folder of an evaluation: the same command resumes it, more sets, YaRN factors or samples extend it, other settings are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polaris.config.load import differences
from polaris.distributed.mesh import World
from polaris.errors import Refused
from polaris.evaluation.samples import mend, read_samples
from polaris.files import write_atomically

_RECORD = "identity.json"
_GROWING = ("sets", "yarn")
"""Parts of the identity whose members are drawn independently of each other, so that they may be more or fewer."""


@contextmanager
def claimed(folder: Path, identity: dict[str, Any], world: World) -> Iterator[None]:
    """The folder belongs to this job until the block ends. `identity` is what a resumed evaluation must share with the first; of its
    `sets` and `yarn` factors, those that both have.

    Raises:
        ValueError: on every rank, if the folder holds another evaluation, is in use, or cannot be written.
    """
    lock, problems = None, []
    if world.is_main:
        try:
            lock = _claim(folder, json.loads(json.dumps(identity)))
        except ValueError as error:
            problems.append(str(error))
    problems = world.gather(problems)
    if problems:
        raise Refused(problems[0])
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _claim(folder: Path, identity: dict[str, Any]) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # before OSError, which it is
        raise Refused(f"{folder} is in use by another evaluation; wait for it, or choose another folder") from None
    except OSError as error:
        raise Refused(f"the evaluation's folder {folder} cannot be written ({error}); choose another one") from None
    record = folder / _RECORD
    begun = any(path.stat().st_size for path in folder.rglob("samples-rank*.jsonl"))
    old = _recorded(record, lock) if begun else {}
    if begun and (changes := _changes(old, identity, folder)):
        lock.release()
        raise Refused(f"{folder} holds an evaluation with other settings ({'; '.join(changes)}); move it away, or go back to its settings")
    grown = identity | {part: old.get(part, {}) | identity.get(part, {}) for part in _GROWING}
    write_atomically(record, (json.dumps(grown, indent=2) + "\n").encode())
    return lock


def _changes(old: dict[str, Any], new: dict[str, Any], folder: Path) -> list[str]:
    """What binds and differs; of the growing parts, members that both have and of which there are samples."""
    both = {part: old.get(part, {}).keys() & new.get(part, {}).keys() for part in _GROWING}
    clashes = {part: {name for name in names if old[part][name] != new[part][name]} for part, names in both.items()}
    if any(clashes.values()):
        drawn = _drawn(folder)
        clashes = {part: names & drawn[part] for part, names in clashes.items()}
    before, after = (tree | {part: {name: tree[part][name] for name in names} for part, names in clashes.items()} for tree in (old, new))
    return differences(before, after)


def _drawn(folder: Path) -> dict[str, set[str]]:
    """The sets and the factors of which there are samples, as the identity names them."""
    sets: set[str] = set()
    factors: set[str] = set()
    for place in folder.glob("rope-*"):
        mend(place)
        here = {sample.key.suite for sample in read_samples(place)}
        sets |= here
        factors |= {place.name.removeprefix("rope-")} if here else set()
    return {"sets": sets, "yarn": factors}


def _recorded(record: Path, lock: FileLock) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text()))
    except (OSError, ValueError) as error:
        lock.release()
        raise Refused(f"{record} cannot be read ({error}), so what the samples beside it are is unknown; move the folder away") from error
