"""The plan in words and numbers, as `polaris plan` and `--dry-run` print it."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from polaris.plan.advice import changed, faster, faults_of
from polaris.plan.cards import GIB
from polaris.plan.memory import Memory, Parts, memory_of
from polaris.plan.setup import Setup
from polaris.plan.speed import StepTime, step_time

SLURM_WARNING_S = 900
"""How long before a job's end scripts/slurm/train.sbatch asks the run to stop, which it does once an update is done."""


def lines(setup: Setup) -> Iterator[str]:
    """Memory, then time by stage."""
    memory, card = memory_of(setup), setup.card
    nodes = f" on {setup.nodes} nodes" if setup.nodes > 1 else ""
    parameters, count = setup.shape.parameters, setup.gpus * setup.nodes
    size = f"{parameters / 1e9:.2f}B" if parameters > 1e9 else f"{parameters / 1e6:.1f}M"
    trained = f", with adapters of {setup.adapters / 1e6:.1f}M, which alone are trained," if setup.adapters else ""
    yield f"{size} parameters{trained} on {count} x {card.name}{nodes}, longest pack {setup.pack:,} tokens"
    yield ""
    yield f"memory of each GPU, of {card.gib:.1f} GiB"
    yield _row("an update", memory.update)
    if setup.engine != "none":
        yield _row("sampling", memory.sampling)
    yield from _engine(setup, memory)
    yield _row("host memory of a node", memory.host)
    if not setup.host_gib:
        yield "                          (whether a node has that is not known here; a start on GPUs looks)"
    yield f"  disk of a checkpoint    {memory.disk / GIB:7.1f} GiB, {setup.kept} of which stay"
    if memory.engine is not None and not faults_of(setup, memory):
        yield ""
        yield from times(setup)


def _row(name: str, parts: Parts) -> str:
    shown = ", ".join(f"{part} {size / GIB:.1f}" for part, size in sorted(parts.items(), key=lambda one: -one[1]) if size > 0.05 * GIB)
    return f"  {name:<22}{sum(parts.values()) / GIB:9.1f} GiB: {shown}"


def _engine(setup: Setup, memory: Memory) -> Iterator[str]:
    if (engine := memory.engine) is None:
        return
    many = "" if setup.tensor_parallel == 1 else f" on each of {setup.tensor_parallel} GPUs"
    count = engine.sequences(setup.longest)
    yield (
        f"  engine                {setup.fraction * setup.card.gib:9.1f} GiB{many}: weights {engine.weights / GIB:.1f}, working "
        f"{engine.working / GIB:.1f}, KV cache {engine.cache / GIB:.1f}, which holds {engine.tokens:,} tokens: {count:.1f} sequences of "
        f"{setup.longest:,}"
    )


def times(setup: Setup) -> Iterator[str]:
    """A row for each stage, and the whole."""
    mean = f"mean response {setup.mean_share:.0%} of the limit"
    yield f"time, estimated within a third or so ({mean}; --mean-tokens sets it)"
    yield "  stage  steps   limit  sampling   update   other   s/step  tokens/s/GPU  GPU-hours"
    hours, longest = 0.0, 0.0
    for number, stage in enumerate(setup.stages, start=1):
        found = step_time(setup, stage)
        spent = gpu_hours(setup, found, stage.steps)
        hours, longest = hours + spent, max(longest, found.passes + found.update + found.turn)
        yield (
            f"  {number:>5} {stage.steps:>6} {stage.response:>7,} {found.sampling:>8.0f}s {found.update:>7.0f}s "
            f"{found.passes + found.turn:>6.0f}s {found.seconds:>7.0f}s {found.tokens_per_gpu:>13,.0f} {spent:>10,.0f}"
        )
    days = hours / (setup.gpus * setup.nodes) / 24
    yield f"  {hours:,.0f} GPU-hours, {days:.1f} days, without difficulty pass, evaluations and saving"
    if longest > SLURM_WARNING_S:
        yield f"  a stop waits for an update: under Slurm give sbatch --signal=B:USR1@{ceil(2 * longest / 600) * 600} (docs/nodes.md)"
    if (quick := faster(setup)) is not None:
        now, then = (step_time(one, one.stages[-1]).seconds for one in (setup, quick))
        yield f"  there is room for {' and '.join(changed(setup, quick))}: {then:,.0f} s a step in place of {now:,.0f}"


def gpu_hours(setup: Setup, step: StepTime, steps: int) -> float:
    return steps * step.seconds * setup.gpus * setup.nodes / 3600
