"""Run on every rank: draws from the queue over the engines of all ranks. Arguments: folder of the model, file for what rank 0 has."""

import pickle
import sys
import time
from itertools import count
from pathlib import Path

import torch
from test_one_engine import context_of, differ, draw_of

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.distributed import mesh
from polaris.rollout.engine import create_engine
from polaris.sampling.board import Enough
from polaris.sampling.draw import sample

ROOM = 16
"""Sequences that one engine decodes together."""


class Slow:
    """A rank that is asked to stop after so many steps, and takes its time in each."""

    def __init__(self, steps, seconds):
        self.left, self.seconds = steps, seconds

    def requested(self):
        time.sleep(self.seconds)
        self.left -= 1
        return self.left < 0


def draw(engine, world, enough=None, steps=10**9, seconds=0.0, draws=None):
    """All that has ended and all that was cut off, on every rank; how many ended on each, and whether it was stopped."""
    context = context_of(engine, stop=Slow(steps, seconds))
    context.world, context.draws, context.config.rollout = world, draws, RolloutConfig(max_concurrent=ROOM)
    mine = []
    with sample(context, draw_of({}), draw_of({}).requests(3), enough=enough, on_ended=mine.append) as sampled:
        scored = [] if sampled.interrupted else [one.rollout for one in sampled.scored()]
        return scored, world.gather(sampled.cut), world.gather([len(mine)]), sampled.interrupted


def main(model, path):
    torch.set_num_threads(1)
    world, draws = mesh.start(), count()
    rollout = RolloutConfig(engine="transformers", max_concurrent=ROOM)
    engine = create_engine(rollout, model, ModelConfig(dtype="float32"), max_model_len=400, seed=0)
    enough = Enough(groups=6, teaches=differ)
    found = {"whole": draw(engine, world, draws=draws), "late": draw(engine, world, draws=draws, seconds=0.05 * world.rank)}
    found["cut"] = [draw(engine, world, enough, draws=draws, seconds=0.01 * world.rank) for _ in range(2)]
    if world.is_main:
        names = ("lane/0", "lane/1", "complete", "teach", "due", "count/0", "verdicts/0")
        found["keys"] = [f"draw/{number}/{name}" for number in range(4) for name in names if world.shared.check([f"draw/{number}/{name}"])]
    found["stopped"] = draw(engine, world, draws=draws, steps=10 if world.rank else 10**9, seconds=0.0 if world.rank else 0.02)
    if world.is_main:
        Path(path).write_bytes(pickle.dumps(found))
    mesh.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
