"""Does it fit, and which rung of the memory ladder makes it fit: the guard of a run's start, and what `polaris plan` advises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from polaris.config.lora import LoraConfig
from polaris.errors import Refused
from polaris.plan.cards import GIB
from polaris.plan.memory import Memory, Parts, memory_of, sampling_of
from polaris.plan.setup import Setup, adapters_of
from polaris.plan.speed import step_time

LADDER = ("keep", "recompute_mlp", "recompute", "offload")
OPTIMIZERS = ("device", "8bit", "host")
"""From the fastest to the smallest."""
ADVISED_RANK = 32
_SURE, _WORTH = 0.9, 0.98
"""Share of a card that must be enough for a faster setting to be advised, and of a step's time that it may take at most."""
MOST_GPUS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A phase that takes more than there is, in bytes."""

    what: str
    parts: Parts
    there: float

    @property
    def needed(self) -> float:
        return sum(self.parts.values())


def faults_of(setup: Setup, memory: Memory) -> list[Fault]:
    """What does not fit, the first phase first; empty where everything does."""
    total, engine = setup.card.gib * GIB, memory.engine
    phases = [("on each GPU, an update", memory.update, total), ("on each GPU, sampling", memory.sampling, total)]
    if setup.host_gib:
        # Processes are assumed, and share much; without room for a copy, training waits for each checkpoint.
        counted = {name: size for name, size in memory.host.items() if name not in ("processes", "copy for checkpoints")}
        phases.append(("in a node's host memory, training", counted, setup.host_gib * GIB))
    if engine is not None:
        parts = {"weights": engine.weights, "working": engine.working, f"{setup.longest:,} tokens": setup.longest * engine.per_token}
        phases.append(("in its share of a GPU, an engine with one sequence", parts, setup.fraction * total))
    return [Fault(what=what, parts=parts, there=there) for what, parts, there in phases if sum(parts.values()) > there]


def fits(setup: Setup) -> bool:
    return not faults_of(setup, memory_of(setup))


def refuse_what_does_not_fit(setup: Setup) -> None:
    """Raise `Refused`, with the parts of the phase and the rungs that help, unless everything fits."""
    if (found := what_does_not_fit(setup)) is not None:
        raise Refused(found)


def what_does_not_fit(setup: Setup) -> str | None:
    """The first phase that does not fit, with its parts and what helps; None if all fit."""
    faults = faults_of(setup, memory_of(setup))
    if not faults:
        return None
    fault, parameters, gpus = faults[0], setup.shape.parameters / 1e9, setup.gpus * setup.nodes
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in fault.parts.items() if size > 0.05 * GIB)
    return (
        f"{fault.what} of {parameters:.1f}B parameters on {gpus} GPU{'s' * (gpus > 1)} takes {fault.needed / GIB:.1f} GiB, and there are "
        f"{fault.there / GIB:.1f} ({shown}); {advice(setup)}"
    )


def advice(setup: Setup) -> str:
    """What makes a configuration fit, in words: settings on the same GPUs, or more of them, or adapters."""
    less, found = _with_smaller_share(setup), best_rungs(setup)
    chosen = [one for one in (less, found) if one is not None and fits(one)]
    ways = list(dict.fromkeys(f"set {' and '.join(changed(setup, one))}" for one in chosen))
    if (count := enough_gpus(setup)) is not None:
        ways.append(f"start {count} GPUs or more" + (" of the same settings" if ways else ""))
    of_adapters = replace(setup, adapters=adapters_of(setup.shape, LoraConfig(rank=ADVISED_RANK)))
    if not setup.adapters and of_adapters.adapters and (lora := best_rungs(of_adapters)) is not None:
        also = changed(setup, lora)
        ways.append(f"train adapters with {' and '.join([f'model.lora.rank = {ADVISED_RANK}', *also])}")
    if not ways and (found := best_on_more(setup)) is not None:
        ways.append(f"start {found.gpus * found.nodes} GPUs or more with {' and '.join(changed(setup, found))}")
    if not ways:
        return "take a smaller model, shorter responses, more GPUs or larger ones"
    return "; or ".join(ways)


def rungs_below(setup: Setup) -> str:
    """What makes an update take a tenth less than the plan counts for it, in words: for one that did not fit all the same."""
    counted = sum(memory_of(setup).update.values())
    return advice(replace(setup, engine="none", tensor_parallel=1, card=replace(setup.card, gib=0.9 * counted / GIB)))


def faster(setup: Setup) -> Setup | None:
    """The fastest setting of the rungs up to the present ones that fits nine tenths of each GPU; None if none spares 2 % of a step.

    It leaves what alters updates as it is: AdamW's 8-bit moments, and the tokens of a pack.
    """
    ways: dict[str, list[Any]] = {
        "activations": list(LADDER[: LADDER.index(setup.activations) + 1]),
        "optimizer": ["host", "device"] if setup.optimizer == "host" else [setup.optimizer],
        "sequence_parallel": _divisors(setup.sequence_parallel),
        "tensor_parallel": _divisors(setup.tensor_parallel),
    }
    above = [replace(setup, **dict(zip(ways, values, strict=True))) for values in product(*ways.values())]
    now = step_time(setup, setup.stages[-1]).seconds
    shares = {one: step_time(one, one.stages[-1]).seconds / now for one in above}
    worth = [one for one in above if shares[one] <= _WORTH]
    sure = [one for one in worth if fits(replace(one, card=replace(one.card, gib=_SURE * one.card.gib)))]
    return min(sure, key=lambda one: (round(shares[one], 2), len(changed(setup, one))), default=None)


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def best_rungs(setup: Setup) -> Setup | None:
    """The setting of the rungs on the same GPUs that fits with the fewest changes, and of these takes the least time; None if none does.

    8-bit moments alter updates: they are there for what would else put the optimizer into host memory, or not fit.
    """
    levels = _levels(setup)
    for count in range(max(levels) + 2):
        same = [replace(setup, **changes) for changes in levels.get(count, ())]
        less = [_with_smaller_share(replace(setup, **changes)) for changes in levels.get(count - 1, ())]
        if found := [one for one in [*same, *less] if one is not None and fits(one)]:
            found.sort(key=lambda one: step_time(one, one.stages[-1]).seconds)
            exact = next((one for one in found if one.optimizer in (setup.optimizer, "host")), None)
            return found[0] if exact is None or exact.optimizer != setup.optimizer else exact
    return None


def _levels(setup: Setup) -> dict[int, list[dict[str, Any]]]:
    """Every combination of rungs from the present ones down, as what it changes, by the number of changes."""
    ways: dict[str, list[Any]] = {
        "activations": list(LADDER[LADDER.index(setup.activations) :]),
        "optimizer": list(OPTIMIZERS[OPTIMIZERS.index(setup.optimizer) :]),
        "sequence_parallel": _sharing(setup),
        "tensor_parallel": _parallel(setup),
        # The largest first, which is taken where sequences are longer than all of them.
        "tokens_per_pack": sorted({min(setup.tokens_per_pack, tokens) for tokens in (setup.tokens_per_pack, 16_384, 8192)}, reverse=True),
    }
    levels: dict[int, list[dict[str, Any]]] = {}
    for values in product(*ways.values()):
        changes = {name: value for name, value in zip(ways, values, strict=True) if value != getattr(setup, name)}
        levels.setdefault(len(changes), []).append(changes)
    return levels


def _sharing(setup: Setup) -> list[int]:
    """Ranks that may share a pack: as now, or more within a node, dividing heads and the ranks of a copy of the state."""
    fit = [n for n in (2, 4, 8) if not (setup.shards % n or setup.gpus % n or setup.shape.heads % n)]
    return [setup.sequence_parallel, *(n for n in fit if n > setup.sequence_parallel)]


def _parallel(setup: Setup) -> list[int]:
    """GPUs that may share an engine: as now, or more; one that holds adapters apart has one."""
    if setup.served_apart or setup.engine not in ("colocated", "separate"):
        return [setup.tensor_parallel]
    here = setup.engine_ranks if setup.engine == "separate" else setup.gpus
    fit = [n for n in (2, 4, 8) if here % n == 0 and setup.shape.heads % n == 0]
    return [setup.tensor_parallel, *(n for n in fit if n > setup.tensor_parallel)]


def _with_smaller_share(setup: Setup) -> Setup | None:
    """The same with the largest share of an engine, in steps of 0.05, that leaves the trainer beside it its own; None if it has no more."""
    if setup.engine != "colocated":
        return None
    kept = sum(sampling_of(setup).values()) / (setup.card.gib * GIB) - setup.fraction
    largest = int(20 * (1 - kept)) / 20
    return replace(setup, fraction=largest) if 0 < largest < setup.fraction else None


def enough_gpus(setup: Setup) -> int | None:
    """The fewest GPUs, doubled from the present ones and in nodes of 8, on which the same settings fit; None if 1,024 are too few."""
    return next((one.gpus * one.nodes for one in _on_more(setup) if fits(one)), None)


def best_on_more(setup: Setup) -> Setup | None:
    """`best_rungs` on the fewest GPUs, doubled as for `enough_gpus`, on which there are some."""
    return next((found for one in _on_more(setup) if (found := best_rungs(one)) is not None), None)


def _on_more(setup: Setup) -> Iterator[Setup]:
    """The same on twice the GPUs, four times, and so on, in nodes of 8."""
    gpus, nodes = setup.gpus, setup.nodes
    while gpus * nodes < MOST_GPUS:
        gpus, nodes = (gpus * 2, nodes) if gpus < 8 else (gpus, nodes * 2)
        yield replace(setup, gpus=gpus, nodes=nodes)


_KEYS = {
    "activations": "memory.activations",
    "sequence_parallel": "distributed.sequence_parallel",
    "tokens_per_pack": "trainer.tokens_per_pack",
    "fraction": "rollout.gpu_memory_fraction",
    "tensor_parallel": "rollout.tensor_parallel",
}


def changed(before: Setup, after: Setup) -> list[str]:
    """The settings in which the second differs, as a configuration writes them."""
    kinds, found = {before.optimizer, after.optimizer}, []
    if len(kinds) == 2 and "8bit" in kinds:
        found.append(f'optimizer.name = "{"adamw8bit" if after.optimizer == "8bit" else "adamw"}"')
    if len(kinds) == 2 and "host" in kinds:
        found.append(f'memory.optimizer = "{"host" if after.optimizer == "host" else "device"}"')
    for name, key in _KEYS.items():
        if (value := getattr(after, name)) != getattr(before, name):
            found.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value:g}")
    return found
