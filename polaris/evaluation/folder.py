"""The folder of an evaluation. The same command resumes it; more sets, YaRN factors or samples extend it; other settings are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polaris.distributed.mesh import World
from polaris.errors import Refused
from polaris.evaluation.samples import mend, read_samples
from polaris.results import Result, differences

_GROWING = ("sets", "yarn")
"""Parts of the identity that may gain or lose members, since each member is drawn on its own."""


@contextmanager
def claimed(folder: Path, identity: dict[str, Any], world: World) -> Iterator[None]:
    """The folder belongs to this job until the block ends. A resumed evaluation must have the same `identity` as the first; its `sets`
    and `yarn` factors must agree only in those that both have.

    Raises:
        ValueError: on every rank, if the folder holds another evaluation, is in use, or cannot be written.
    """
    lock, problems = FileLock(folder / ".lock"), []
    if world.is_main:
        try:
            _lock(folder, lock)
            _record(folder, json.loads(json.dumps(identity)))
        except ValueError as error:
            problems.append(str(error))
    problems = world.gather(problems)
    try:
        if problems:
            raise Refused(problems[0])
        yield
    finally:
        lock.release()


def _lock(folder: Path, lock: FileLock) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # a subclass of OSError
        raise Refused(f"{folder} is in use by another evaluation; wait for it, or choose another folder") from None
    except OSError as error:
        raise Refused(f"the evaluation's folder {folder} cannot be written ({error}); choose another one") from None


def _record(folder: Path, identity: dict[str, Any]) -> None:
    """Record the identity, with the growing parts of earlier calls; raises `Refused` if their samples belong to another identity."""
    record = Result(folder / "identity.json", remedy="nothing else says what its samples are: move the folder away")
    old: dict[str, Any] = {}
    if any(path.stat().st_size for path in folder.rglob("samples-rank*.jsonl")):
        old = record.read_existing()
        if changes := "; ".join(_changes(old, identity, folder)):
            raise Refused(
                f"{folder} holds an evaluation with other settings ({changes}); give another --output, or go back to its settings"
            )
    record.write(identity | {part: old.get(part, {}) | identity.get(part, {}) for part in _GROWING})


def _changes(old: dict[str, Any], new: dict[str, Any], folder: Path) -> list[str]:
    """Differences that matter; in the growing parts, only members that both have and that have samples."""
    both = {part: old.get(part, {}).keys() & new.get(part, {}).keys() for part in _GROWING}
    clashes = {part: {name for name in names if old[part][name] != new[part][name]} for part, names in both.items()}
    if any(clashes.values()):
        drawn = _drawn(folder)
        clashes = {part: names & drawn[part] for part, names in clashes.items()}
    before, after = (tree | {part: {name: tree[part][name] for name in names} for part, names in clashes.items()} for tree in (old, new))
    return differences(before, after)


def _drawn(folder: Path) -> dict[str, set[str]]:
    """The sets and factors that have samples, by their names in the identity."""
    sets: set[str] = set()
    factors: set[str] = set()
    for place in folder.glob("rope-*"):
        mend(place)
        here = {sample.key.suite for sample in read_samples(place)}
        sets |= here
        factors |= {place.name.removeprefix("rope-")} if here else set()
    return {"sets": sets, "yarn": factors}
