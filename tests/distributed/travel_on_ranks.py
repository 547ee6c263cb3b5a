"""Run under torchrun: rollouts that go to rank 0 and back to their trainers. Argument: folder, for what each rank holds (`R.pkl`)."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))
from groups import prompt, scored

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.distributed import mesh
from polaris.distributed.travel import gather_scored
from polaris.learn.curate import curate
from polaris.learn.success_buffer import SuccessBuffer
from polaris.learn.update import dealt_packs
from polaris.types import Group

RANKS = 3
TOKENS_PER_PACK = 60
STEPS = ({"a": "+-", "b": "--", "c": "-+", "d": "+-"}, {"a": "--", "b": "+-", "c": "--", "d": "++"})
"""Verdicts of two steps. In the second, what the first has stored rescues a and c; d teaches nothing, so some group is trained twice."""
TEXTS = ("plain", "", "größer \N{SNOWMAN}", "\ud800 alone")
CONFIG = RunConfig(algorithm=AlgorithmConfig(rescue=1, substitution=True), trainer=TrainerConfig(prompts_per_step=4))


def drawn(step):
    """The scored rollouts of a step in the order of their prompts: some with tokens that were only read, some of two versions."""
    found = []
    for place, (name, letters) in enumerate(STEPS[step].items()):
        for sample, letter in enumerate(letters):
            one = scored(name, sample, letter, version=5 + step)
            length, rollout = len(one.rollout.tokens), one.rollout
            mask = (np.arange(length) % 3 > 0) if sample else None
            versions = rollout.versions - (np.arange(length) < 2) if place % 2 else rollout.versions
            found.append(replace(one, text=TEXTS[place], rollout=replace(rollout, mask=mask, versions=versions)))
    return found


def groups_of(everything):
    return [Group(prompt=prompt(name), rollouts=tuple(one for one in everything if one.rollout.prompt_id == name)) for name in "abcd"]


def share(everything, rank):
    """Rank 1 has none."""
    return everything[:5] if rank == 0 else everything[5:] if rank == 2 else []


def second_step(first, second):
    """The batch of the second step, with the buffer that the first has filled."""
    successes = SuccessBuffer(1)
    successes.add(groups_of(first))
    return successes, curate(groups_of(second), CONFIG, successes, step=2)


class Sent:
    """Counts the bytes of arrays that this rank sends."""

    def __init__(self):
        self.bytes, self._send = 0, dist.all_to_all_single
        dist.all_to_all_single = self

    def __call__(self, output, given, *sizes):
        self.bytes += given.numel() * given.element_size()
        return self._send(output, given, *sizes)


def main(folder):
    torch.set_num_threads(1)
    world = mesh.start()
    sent = Sent()
    first, second = (gather_scored(share(drawn(step), world.rank), world) for step in range(2))
    gathered, sent.bytes = sent.bytes, 0
    successes, batch = second_step(first, second)
    (packs,) = dealt_packs([batch.samples], world, TOKENS_PER_PACK)
    facts = {
        "first": first,
        "second": second,
        "gathered_bytes": gathered,
        "dealt_bytes": sent.bytes,
        "successes": [successes.of(name) for name in "abcd"],
        "samples": packs.samples,
        "plan": packs.plan,
        "packs": [pack.tokens.tolist() for pack in packs],
        "memory": [_memory(one.rollout) for one in (*first, *second)],
        "memory_of_successes": [_memory(one.rollout) for name in "abcd" for one in successes.of(name)],
    }
    Path(folder, f"{world.rank}.pkl").write_bytes(pickle.dumps(facts))
    mesh.stop()


def _memory(rollout):
    """Bytes of tokens and log-probs."""
    return sum(array.itemsize if array.strides == (0,) else array.nbytes for array in (rollout.tokens, rollout.logprobs))


if __name__ == "__main__":
    main(*sys.argv[1:])
