"""Checks that all ranks see one file system, and the same configuration and data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from polaris.distributed.mesh import World
from polaris.errors import Refused

_POLL_S = 0.05


def check_shared(folder: Path, world: World, patience_s: float = 60.0) -> None:
    """Create `folder`, and raise `Refused` on every rank if some rank does not see what rank 0 writes there.

    Ranks read from files which phases are done, so separate folders would make them wait for each other for ever. A network file
    system may show a new file late, hence `patience_s`.
    """
    if world.size == 1:
        return
    token = folder / f".seen-{world.gather([uuid4().hex] if world.is_main else [])[0]}"
    if world.is_main:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
    world.barrier()
    blind = world.gather([] if _appears(token, patience_s) else [world.rank])
    if world.is_main:
        with suppress(OSError):
            token.unlink()
    if blind:
        ranks = ", ".join(map(str, blind))
        raise Refused(f"rank {ranks}: what rank 0 writes into {folder.absolute()} is not there; it must be a folder that all nodes share")


def check_same(facts: Mapping[str, str], world: World) -> None:
    """Raise `Refused` on every rank if a fact, such as a digest of files that each rank reads, differs between ranks."""
    for name, value in facts.items():
        if len(set(world.gather([value]))) > 1:
            raise Refused(f"{name}: not all ranks read the same; give every node the same files, best on a shared file system")


def _appears(path: Path, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
