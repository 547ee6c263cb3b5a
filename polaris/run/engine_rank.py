"""A whole rank that only samples, from its engine's start to its end (`rollout.placement = "separate"`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from polaris.config.load import dump_config
from polaris.distributed.mesh import World
from polaris.errors import Refused
from polaris.observe.console import Console
from polaris.reward.rewards import Rewards
from polaris.rollout.engine import is_in_flight
from polaris.run.checks import Checked
from polaris.run.setup import open_engine, patience
from polaris.sampling.context import SamplingContext
from polaris.sampling.engine_rank import EngineRank
from polaris.sampling.mailbox import Begin
from polaris.stop import StopRequest


def sample_for_trainers(checked: Checked, world: World, stop: StopRequest) -> None:
    """Draw and grade what the trainers ask for, until they end.

    Raises:
        Refused: the trainers have read another configuration.
    """
    config = checked.config
    with stop.at_once(), _place_of(world):
        engine = open_engine(checked)
    stepping = engine
    assert is_in_flight(stepping), "checked before"
    rank = EngineRank(stepping, world, stop, config.rollout.max_concurrent, patience(config))
    try:
        command = rank.run()
        if isinstance(command, Begin):
            if command.config != dump_config(config):
                raise Refused("the configuration: not all ranks read the same; give every node the same files")
            decided = replace(config, reward=replace(config.reward, require_thinking=command.require_thinking))
            reward = config.reward if world.rank == 0 else replace(config.reward, workers=1)
            with Rewards(reward, command.require_thinking) as grader:
                grader.wait()
                command = rank.run(
                    SamplingContext(
                        config=decided,
                        world=world,
                        tokenizer=checked.tokenizer,
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
def _place_of(world: World) -> Iterator[None]:
    """vLLM reads its place from the environment: that among the ranks of its own engine. Names in shared memory are of a run."""
    run = "TORCHELASTIC_RUN_ID"
    own = {"RANK": str(world.rank), "WORLD_SIZE": str(world.size), run: f"{os.environ.get(run, '')}-engine-{world.engine}"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
