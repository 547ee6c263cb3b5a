"""Every contestant of every contest, each round after a turn of ours: `make benchmark`."""

from __future__ import annotations

import pytest
import torch

from benchmarks.kernels.contest import OURS, beside_ours, facts, peak_gib, synchronise, timed
from benchmarks.kernels.contests import contests
from benchmarks.kernels.peers import Unavailable, load
from benchmarks.kernels.size import size_here

CONTESTS = {contest.name: contest for shapes in contests(size_here()) for contest in shapes}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("case", "name"), [(case, name) for case, contest in CONTESTS.items() for name in contest.contestants])
def test_speed(benchmark, device, bound, green, case, name):
    contest = CONTESTS[case]
    try:
        function = load(contest.contestants, name, device)
    except Unavailable as reason:
        pytest.skip(str(reason))
    ours = load(contest.contestants, OURS, device) if name != OURS and contest.operation in green else None
    arena, turns = contest.prepare(device), []

    def turn_of_ours():
        if ours is not None:
            turns.append(timed(lambda: arena.run(ours), device))

    try:
        memory = peak_gib(lambda: arena.run(function), device)
        benchmark.pedantic(lambda: (arena.run(function), synchronise(device)), setup=turn_of_ours, rounds=contest.rounds, warmup_rounds=1)
    except torch.OutOfMemoryError:
        pytest.skip(f"out of memory on {torch.cuda.get_device_name()}")
    seconds = benchmark.stats.stats.data
    found = facts(arena.work, bound, seconds, memory) | arena.check(function)
    if turns:
        found |= beside_ours(seconds, turns[1:])  # the first is the warm-up's
    parameters = {**contest.parameters, "name": name}
    benchmark.extra_info["row"] = {"test": contest.operation, "case": "-".join(map(str, parameters.values())), "parameters": parameters}
    benchmark.extra_info["facts"] = found
