"""How every command that starts an engine begins and ends: signals, process group, and exit status instead of tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from polaris.errors import Refused, RunFailed
from polaris.trainer.signals import StopRequest

if TYPE_CHECKING:
    from polaris.distributed.mesh import World

Prepared = TypeVar("Prepared")


def run_session(prepare: Callable[[], Prepared], work: Callable[[Prepared, World, StopRequest], None]) -> int:
    """Exit status: 0 done, or stopped on request and kept; 1 the run failed; 2 bad input.

    Whatever is wrong before any process group or engine exists is a `ValueError` of `prepare`.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    stop = StopRequest()
    stop.install()
    try:
        prepared = prepare()
    except ValueError as error:
        return _fail(error, status=2)

    from polaris.distributed import mesh
    from polaris.rollout.types import GenerationInterrupted

    world = mesh.start()
    try:
        work(prepared, world, stop)
    except GenerationInterrupted:
        if is_main():
            print("stopped: what is finished is on disk, and the same command goes on from there")
    except (Refused, RunFailed) as error:
        # It may concern one rank alone, such as a GPU that is occupied.
        return _leave(world, _fail(error, 2 if isinstance(error, Refused) else 1, every_rank=True))
    except Exception:
        traceback.print_exc()
        return _leave(world, 1)
    mesh.stop()
    return 0


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
