"""A rank that only samples, from its engine's start to its end (`rollout.placement = "separate"`): the rank itself keeps a process below it
at work, and starts it again where it dies. This module is that process's program too: `python -m polaris.run.engine_rank PIPE PARENT`."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import TYPE_CHECKING

from polaris.config.load import dump_config
from polaris.distributed.supervise import Lives, Process, Pulse, end_with_parent, say_over, supervise
from polaris.errors import Refused
from polaris.stop import StopRequest

if TYPE_CHECKING:
    from polaris.distributed.mesh import StorePlace, World
    from polaris.run.checks import Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTask:
    """What an engine's process needs of what was checked, and which of its lives this is; `server` is the number of the server outside the
    job that it drives, if it does, and `place` where the store is then."""

    checked: Checked
    life: int
    server: int | None = None
    place: StorePlace | None = None

    def pickled(self) -> bytes:
        """Without the prompts, which come with the jobs."""
        checked = replace(self.checked, prompts=replace(self.checked.prompts, prompts=()), held_out=None)
        return pickle.dumps(replace(self, checked=checked))


def keep_sampling(checked: Checked, stop: StopRequest) -> int:
    """Keep an engine's process at work until the trainers end: the exit status of this rank, which has joined the job."""
    from polaris.distributed import mesh

    job = mesh.join()
    place = checked.config.rollout.roles.place_of(job.rank, job.size)
    assert place is not None, "this rank trains"
    return _keep(EngineTask(checked=checked, life=0), Lives(mesh.shared_store(job), place[0]), stop)


@contextmanager
def driven_servers(checked: Checked, world: World, stop: StopRequest) -> Iterator[None]:
    """While the block runs, a process below the first trainer drives each server outside the job, as those below other ranks do their
    engines. The block must end the engines."""
    from polaris.distributed import mesh

    def drive(server: int) -> None:
        lives = Lives(mesh.shared_store(world.job), world.roles.engine_of_server(server))
        task = EngineTask(checked=checked, life=0, server=server, place=mesh.store_place(world.job))
        if (status := _keep(task, lives, stop)) and not stop.number:
            lives.end(0, f"did not come up (status {status}): see its message")

    threads = [Thread(target=drive, args=(server,), name=f"server {server}") for server in range(world.roles.servers * world.is_main)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        if threads:
            say_over(world.shared)
        for thread in threads:
            thread.join()


def _keep(task: EngineTask, lives: Lives, stop: StopRequest) -> int:
    config = task.checked.config

    def start(life: int) -> Process:
        return Process(__name__, replace(task, life=life).pickled())

    return supervise(start, lives, stop, 60 * config.rollout.engine_timeout_minutes, 3600 * config.distributed.wait_timeout_hours)


def sample_for_trainers(task: EngineTask, world: World, stop: StopRequest, pulse: Pulse) -> None:
    """Draw and grade what the trainers ask for, until they end.

    Raises:
        Refused: the trainers have read another configuration.
    """
    from polaris.observe.console import Console
    from polaris.reward.rewards import Rewards
    from polaris.rollout.engine import is_in_flight
    from polaris.run.setup import open_engine, open_server
    from polaris.sampling.context import SamplingContext
    from polaris.sampling.engine_rank import EngineRank
    from polaris.sampling.mailbox import Begin

    config = task.checked.config
    with stop.at_once(), _place_of(world, task.life):
        engine = open_engine(task.checked) if task.server is None else open_server(task.checked, task.server)
    stepping = engine
    assert is_in_flight(stepping), "checked before"
    rank = EngineRank(stepping, world, stop, pulse, task.life, config.rollout)
    try:
        if not rank.arrive():
            return
        command = rank.run()
        if isinstance(command, Begin):
            if command.config != dump_config(config):
                raise Refused("the configuration: not all ranks read the same; give every node the same files")
            decided = replace(config, reward=replace(config.reward, require_thinking=command.require_thinking))
            reward = config.reward if world.rank == 0 else replace(config.reward, workers=1)
            with Rewards(reward, command.require_thinking) as grader:
                grader.wait(lambda: pulse.beat("the rewards to be loaded"))
                command = rank.run(
                    SamplingContext(
                        config=decided,
                        world=world,
                        tokenizer=task.checked.tokenizer,
                        engine=engine,
                        grader=grader,
                        console=Console(False, 0),
                        stop=stop,
                    )
                )
                rank.drop()
        assert not isinstance(command, Begin)
        stop.number = stop.number or command.signal
    finally:
        engine.close()
    rank.end()


@contextmanager
def _place_of(world: World, life: int) -> Iterator[None]:
    """vLLM reads its place from the environment: that among the ranks of its own engine. Names in shared memory are of a run."""
    run = "TORCHELASTIC_RUN_ID"
    own = {"RANK": str(world.rank), "WORLD_SIZE": str(world.size), run: f"{os.environ.get(run, '')}-engine-{world.engine}-{life}"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def main(pipe: int, parent: int) -> int:
    """Be the process of an engine."""
    from polaris.distributed import mesh
    from polaris.run.session import work_below

    end_with_parent(parent)
    task: EngineTask = pickle.load(sys.stdin.buffer)
    config, pulse = task.checked.config, Pulse(pipe)
    roles, limits = config.rollout.roles, config.distributed

    def start() -> World:
        if task.server is None or task.place is None:
            return mesh.start(limits, roles, task.life)
        return mesh.beside(roles, task.server, limits, task.place)

    return work_below(lambda world, stop: sample_for_trainers(task, world, stop, pulse), start)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
