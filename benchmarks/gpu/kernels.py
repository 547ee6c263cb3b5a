"""Every operation by itself, then beside its peers in turns, at the clocks that the card holds; only operations whose tests are green."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.ceilings import QUERY, asked
from benchmarks.gpu.figures import Call, Figure, suite_name, tested, verdict
from benchmarks.gpu.journal import Line
from benchmarks.gpu.suites import command, run_suites
from benchmarks.kernels.contest import OURS, Bound, Contest, beside_ours, facts, held_seconds, measure_bound, peak_gib, timed
from benchmarks.kernels.contests import OPERATIONS, contests
from benchmarks.kernels.errors import HEAD, Judge
from benchmarks.kernels.peers import LINEAR_LOGPROB, Unavailable, load
from benchmarks.kernels.size import Size, size_here

SLOW = ("linear_logprob", "linear_policy_loss")
"""Operations whose peers compile and tune for long."""


def figures(call: Call) -> Iterator[Figure]:
    """The tests that have not run yet; ours and peers at the first shape of every operation; then at the others."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = "tiny" if call.small else size_here()
    untested = (operation for operation in OPERATIONS if tested(operation, call.journal) is None)
    yield from run_suites({suite_name(operation): command(operation, call=call) for operation in untested}, call)
    yield Figure(name="bound", seconds=15, run=partial(tell_bound, device, size))
    for number, shapes in enumerate(contests(size)):
        for contest in shapes:
            yield Figure(name=f"{contest.name}, ours", seconds=15, run=partial(alone, contest, call, device), operation=contest.operation)
        if number == 0:
            head, rows = ("tiny", 16) if call.small else (HEAD, 256)
            yield Figure(name="errors", seconds=60, run=partial(tell_errors, head, rows, device), operation="linear_logprob")
        for contest in shapes:
            seconds, run = 80 if contest.operation in SLOW else 20, partial(together, contest, call, device)
            yield Figure(name=contest.name, seconds=seconds, run=run, operation=contest.operation)
        for contest in shapes:
            if contest.operation == "policy_loss" and device.type == "cuda":  # its launches take longer than its work
                name, run = f"{contest.name}, ours as a graph", partial(as_graph, contest, call, device)
                yield Figure(name=name, seconds=10, run=run, operation=contest.operation)


def tell_bound(device: torch.device, size: Size) -> Iterator[Line]:
    bound = measure_bound(device, size)
    yield Line(name="bound", values={"TFLOP/s": bound.flops / 1e12, "GB/s": bound.bandwidth / 1e9})


def bound_of(call: Call) -> Bound:
    """As it was measured in this call; a worker that takes another's place finds it in results.jsonl."""
    values = next((line["values"] for line in call.journal.lines() if line["name"] == "bound" and line["status"] == "ok"), None)
    if values is None:
        raise Unavailable("the bound is not known")
    return Bound(flops=1e12 * values["TFLOP/s"], bandwidth=1e9 * values["GB/s"])


def alone(contest: Contest, call: Call, device: torch.device) -> Iterator[Line]:
    """Ours, after two seconds of itself."""
    arena, function = contest.prepare(device), load(contest.contestants, OURS, device)
    run = partial(arena.run, function)
    memory, warm = peak_gib(run, device), 0.0 if call.small else 2.0
    with asked(QUERY, delay=warm / 2) as answer:
        held_seconds(run, device, warm)
        seconds = [timed(run, device) for _ in range(contest.rounds)]
    yield told(contest, OURS, facts(arena.work, bound_of(call), seconds, memory) | arena.check(function) | answer)


def as_graph(contest: Contest, call: Call, device: torch.device) -> Iterator[Line]:
    """Ours, captured once as a CUDA graph: seconds of the device without those of the launches."""
    arena, replays = contest.prepare(device), 100
    run, graph = partial(arena.run, load(contest.contestants, OURS, device)), torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        run()
    seconds = [timed(lambda: [graph.replay() for _ in range(replays)], device) / replays for _ in range(10)]
    yield told(contest, f"{OURS}, as a graph", facts(arena.work, bound_of(call), seconds, 0.0))


def together(contest: Contest, call: Call, device: torch.device) -> Iterator[Line]:
    """All contestants in turns; one that is missing, fails or finds no memory is a line, and the others go on."""
    arena, runs, memory = contest.prepare(device), {}, {}
    for name in contest.contestants:
        try:
            function = load(contest.contestants, name, device)
            runs[name] = partial(arena.run, function)
            memory[name] = peak_gib(runs[name], device)
        except Exception as error:
            runs.pop(name, None)
            status, reason = verdict(error)
            yield told(contest, name, {}, status, reason)
            if "CUDA error" in reason:
                raise
    bound, turns = bound_of(call), {name: [] for name in runs}
    with asked(QUERY, delay=0.0 if call.small else 0.5) as answer:
        for number in range(contest.rounds + 1):
            for name, run in runs.items():
                seconds = timed(run, device)
                if number:  # the first round warms
                    turns[name].append(seconds)
    for name, seconds in turns.items():
        beside = {} if name == OURS or OURS not in turns else beside_ours(seconds, turns[OURS])
        found = facts(arena.work, bound, seconds, memory[name]) | arena.check(load(contest.contestants, name, device))
        yield told(contest, name, found | beside | answer)


def told(contest: Contest, name: str, values: dict[str, float], status: Any = "ok", reason: str = "") -> Line:
    parameters = {**contest.parameters, "name": name}
    case = "-".join(map(str, parameters.values()))
    row = {"test": contest.operation, "case": case, "parameters": parameters}
    return Line(name=f"{contest.operation}-{case}", status=status, values=values, reason=reason, row=row)


def tell_errors(head: str, rows: int, device: torch.device) -> Iterator[Line]:
    """Errors against float64 of each contestant of `linear_logprob`."""
    judge = Judge(head, rows, device)
    for name in LINEAR_LOGPROB:
        row = {"test": "errors of linear_logprob", "case": name, "parameters": {"head": head, "rows": rows, "name": name}}
        try:
            yield Line(name=f"errors {name}", values=judge(name), row=row)
        except Exception as error:
            status, reason = verdict(error)
            yield Line(name=f"errors {name}", status=status, reason=reason, row=row)
            if "CUDA error" in reason:
                raise
