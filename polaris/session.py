"""How every command that starts an engine begins and ends: signals, process group, and exit status instead of tracebacks."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from polaris.config.schema import DistributedConfig
from polaris.errors import Refused, RunFailed
from polaris.trainer.signals import StopRequest

if TYPE_CHECKING:
    from polaris.distributed.mesh import World

Prepared = TypeVar("Prepared")
_LATER_S = 2.0


def run_session(
    prepare: Callable[[], Prepared],
    work: Callable[[Prepared, World, StopRequest], None],
    limits: Callable[[Prepared], DistributedConfig] = lambda _: DistributedConfig(),
) -> int:
    """Exit status: 0 done, or stopped on request and kept; 1 the run failed; 2 bad input.

    Whatever is wrong before any process group or engine exists is a `ValueError` of `prepare`. `limits` are how long ranks wait for
    each other.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    alone, stop = os.environ.get("WORLD_SIZE", "1") == "1", StopRequest()
    if alone:
        stop.install()
    try:
        prepared = prepare()
    except ValueError as error:
        if not is_main():
            time.sleep(_LATER_S)  # where it concerns all ranks, rank 0 has said it by then, and torchrun has ended this one
        return _fail(error, status=2, every_rank=True)

    from polaris.distributed import mesh
    from polaris.rollout.types import GenerationInterrupted

    world = mesh.start(limits(prepared))
    if not alone:
        stop.install()  # not before: who waits for a rank that died must not wait on when it is told to stop
    try:
        work(prepared, world, stop)
    except GenerationInterrupted:
        if is_main():
            print("stopped: what is finished is on disk, and the same command goes on from there")
    except (Refused, RunFailed) as error:
        # It may concern one rank alone, such as a GPU that is occupied.
        return _leave(world, _fail(error, 2 if isinstance(error, Refused) else 1, every_rank=True))
    except Exception as error:
        known = _explained(error)
        if known is None:
            traceback.print_exc()
            return _leave(world, 1)
        return _leave(world, _fail(known, 1, every_rank=True))
    mesh.stop()
    return 0


def _explained(error: Exception) -> RunFailed | None:
    """The failures that come from outside, in one line."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return RunFailed(f"{error}; make room, or mend the disk. What is finished is on disk, and the same command goes on from there")
    if isinstance(error, RuntimeError) and re.search(r"Connection (closed|reset) by peer", str(error)):
        return RunFailed(
            "another rank is gone: see its message, or the exit codes that torchrun lists. What is finished is on disk, and the same "
            "command goes on from there"
        )
    return None


def _leave(world: World, status: int) -> int:
    """End a session that failed. Among several ranks the process ends here and now: leaving their group in order waits for ranks that
    wait for this one, while torchrun stops them all as soon as one of them is gone."""
    from polaris.distributed import mesh

    if world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    mesh.stop()
    return status


def is_main() -> bool:
    """Whether this process speaks for all ranks; known before there is a process group."""
    return os.environ.get("RANK", "0") == "0"


def _fail(error: Exception, status: int, *, every_rank: bool = False) -> int:
    if is_main():
        print(f"polaris: {error}", file=sys.stderr)
    elif every_rank:
        print(f"polaris, rank {os.environ['RANK']}: {error}", file=sys.stderr)
    return status
