"""Memory of this host, as far as this process may have it: a container or a Slurm job has a control group with a limit of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def host_memory() -> float:
    """Bytes of this host, or the limit of this process's control group if that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(min([physical, *(limit for _, limit in _limits())]))


def free_host_memory() -> float:
    """Bytes that this host, and the control groups of this process that have a limit, have left."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return min([1024.0 * int(facts["MemAvailable"].split()[0]), *(float(limit - _used(group)) for group, limit in _limits())])


def _limits() -> Iterator[tuple[Path, int]]:
    """The control groups (version 2) of this process that have a limit, and it in bytes; in a container its own one is the root."""
    lines = _OWN.read_text().splitlines() if _OWN.is_file() else []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    group = _GROUPS / own
    for one in (group, *(parent for parent in group.parents if parent.is_relative_to(_GROUPS))):
        limit = one / "memory.max"
        if limit.is_file() and (words := limit.read_text().strip()) != "max":
            yield one, int(words)


def _used(group: Path) -> int:
    """Without the pages of files, which give way."""
    used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(used["anon"]) + int(used["shmem"])
