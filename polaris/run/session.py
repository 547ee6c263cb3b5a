"""Start and end of every command that starts an engine: signals, process group, and an exit status instead of a traceback."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from polaris.config.rollout import Roles
from polaris.config.training import DistributedConfig
from polaris.distributed.speaker import speaker
from polaris.errors import Refused, RunFailed, in_one_line
from polaris.stop import StopRequest, is_main

if TYPE_CHECKING:
    from polaris.distributed.mesh import World

Prepared = TypeVar("Prepared")


def run_session(
    prepare: Callable[[], Prepared],
    work: Callable[[Prepared, World, StopRequest], None],
    limits: Callable[[Prepared], DistributedConfig] = lambda _: DistributedConfig(),
    roles: Callable[[Prepared], Roles] = lambda _: Roles(),
    sample: Callable[[Prepared, StopRequest], int] | None = None,
) -> int:
    """Exit status: 0 done; 1 the run failed; 2 bad input; 130 and 143 after Ctrl-C and SIGTERM, with what is finished on disk.

    `prepare` raises `ValueError` for bad input, before any engine exists; raised on one rank, it ends all. `limits` says how long
    ranks wait for each other, and `roles` what they do: those that only sample do `sample`, the others `work`. If one rank was asked to
    stop, all ranks return that status.
    """
    stop = _listen()
    with stop.at_once():
        try:
            prepared = prepare()
        except ValueError as error:
            refusal = str(error)
            if is_main():
                _say(refusal)
            return _refuse_together(refusal)

        if _refuse_together(""):
            return 2
        samples = sample is not None and _samples(roles(prepared))
        world = None if samples else _start(limits(prepared), roles(prepared))
    if world is None:
        assert sample is not None
        return sample(prepared, stop)
    return _end(world, _status(lambda: work(prepared, world, stop), world, stop))


def work_below(work: Callable[[World, StopRequest], None], start: Callable[[], World]) -> int:
    """`work` in a process below a rank, after everything was prepared: the exit status of `run_session`."""
    stop = _listen()
    with stop.at_once():
        world = start()
    return _end(world, _status(lambda: work(world, stop), world, stop))


def dry_run(show: Callable[[], None]) -> int:
    """`show` what would run: exit status 0, or 2 after it has said what is wrong."""
    try:
        show()
    except ValueError as error:
        print(f"polaris: {error}", file=sys.stderr)
        return 2
    return 0


def run_here(
    work: Callable[[World, StopRequest], None],
    limits: DistributedConfig,
    roles: Roles | None = None,
    sample: Callable[[StopRequest], int] | None = None,
) -> None:
    """`work`, or `sample` on a rank that only samples, inside of a user's own program, alone or under torchrun. Errors are raised, and a
    signal ends it by `SystemExit`.

    With several ranks it ends as `run_session` does, since other ranks may wait for one that fails.
    """
    from polaris.rollout.types import GenerationInterrupted

    stop = StopRequest()
    with stop.heard():
        if sample is not None and _samples(roles or Roles()):
            if status := sample(stop):
                os._exit(status)
            return
        world = _start(limits, roles or Roles())
        if world.job.size > 1:
            _end(world, _status(lambda: work(world, stop), world, stop))
            return
        try:
            work(world, stop)
        except GenerationInterrupted:
            pass  # what is finished is on disk
        except (OSError, RuntimeError) as error:
            if known := _explained(error):
                raise known from error
            raise
        finally:
            _end(world, 0)
    if stop.number:
        raise SystemExit(128 + stop.number)


def _listen() -> StopRequest:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    stop = StopRequest()
    stop.install()
    return stop


def _samples(roles: Roles) -> bool:
    """Whether this rank only samples."""
    return roles.place_of(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))) is not None


def _start(limits: DistributedConfig, roles: Roles) -> World:
    from polaris.distributed import mesh  # takes seconds: not before what is wrong in a configuration was said

    return mesh.start(limits, roles)


def _refuse_together(refusal: str) -> int:
    """2 if a rank was refused, else 0. Of ranks with the same message, the first one prints it. No rank has a role yet: those that are
    refused may not know any."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return 2 if refusal else 0
    from polaris.distributed import mesh

    job = mesh.join()
    refusals = mesh.agree(refusal, job)
    if refusal and refusals.index(refusal) == job.rank > 0:
        _say(f"{refusal} (on {socket.gethostname()})")
    return 2 if any(refusals) else 0


def _status(work: Callable[[], None], world: World, stop: StopRequest) -> int:
    from polaris.distributed import watch
    from polaris.distributed.failure import concerns_all, should_print
    from polaris.rollout.types import GenerationInterrupted

    try:
        work()
    except GenerationInterrupted:
        if world.is_main:
            print("stopped: what is finished is on disk, and the same command goes on from there")
    except Exception as error:
        known, alone = error if isinstance(error, Refused | RunFailed) else _explained(error), speaker(world.job.rank, watch.where())
        if known is None:
            traceback.print_exc()
            if world.job.size > 1:
                _say(f"{type(error).__name__}: {in_one_line(error)} (see its traceback)", alone)
            return 1
        # It may concern one rank alone, such as a GPU that is occupied; what concerns all, the first of them says.
        if should_print(world.job, str(known)):
            _say(str(known), "" if concerns_all(world.job, str(known)) else alone)
        return 2 if isinstance(known, Refused) else 1
    signals = world.gather([stop.number])  # all ranks are done here, and none is cut off when torchrun sees the first one end
    return 128 + max(signals) if any(signals) else 0


def _explained(error: Exception) -> RunFailed | None:
    """A failure that comes from outside (disk, GPU memory, another rank) in one line; None for all others."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return RunFailed(
            f"{in_one_line(error, 120)} Lower trainer.tokens_per_pack in an update, rollout.gpu_memory_fraction where the engine starts, "
            'or take a rung of docs/memory.md, such as memory.activations = "offload"; the same command goes on from the last checkpoint'
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return RunFailed(f"{error}; make room, or mend the disk. What is finished is on disk, and the same command goes on from there")
    if isinstance(error, RuntimeError) and re.search(r"Connection (closed|reset) by peer", str(error)):
        return RunFailed(
            "another rank is gone: see its message, or what torchrun says of it. What is finished is on disk, and the same command goes on "
            "from there"
        )
    return None


def _end(world: World, status: int) -> int:
    """Leave the process group. After a failure the process ends at once: leaving in order would wait for ranks that wait for this one,
    and torchrun stops all ranks as soon as one has ended."""
    from polaris.distributed import mesh

    if status and world.job.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    mesh.stop()
    return status


def _say(message: str, who: str = "") -> None:
    who = who or ("polaris" if is_main() else f"polaris, rank {os.environ['RANK']}")
    print(f"{who}: {message}", file=sys.stderr, flush=True)
