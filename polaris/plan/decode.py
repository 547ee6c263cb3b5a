"""How long engines take for the responses of a step: bandwidth for weights and cache, products for many sequences, and the long tail."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from polaris.plan.cards import RATES, Rates
from polaris.plan.memory import Engine
from polaris.plan.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Seconds of a decoding step of n sequences with `context` tokens together: the larger of `fixed` and n x `sequence`, plus
    context x `token`, plus `step`."""

    step: float
    fixed: float
    sequence: float
    token: float
    prefill: float
    """Seconds of a prompt's token."""

    def seconds(self, sequences: int) -> float:
        """Of a step, its context left out."""
        return self.step + max(self.fixed, sequences * self.sequence)


def decoding_of(setup: Setup, engine: Engine, rates: Rates = RATES) -> Decoding:
    """The rates of one engine, of `setup.tensor_parallel` GPUs."""
    shape, card, parallel = setup.shape, setup.card, setup.tensor_parallel
    products = 2 * (shape.matrices + shape.head) / parallel
    reductions = 2 * shape.layers * rates.reduction if parallel > 1 else 0.0
    read = (setup.weight * shape.matrices + setup.itemsize * shape.head) / parallel
    return Decoding(
        step=rates.step + reductions,
        fixed=read / (card.hbm * 1e9 * rates.reading),
        sequence=products / (card.matrix * 1e12 * rates.decoding),
        token=engine.per_token / (card.hbm * 1e9 * rates.cache),
        prefill=products / (card.products * 1e12),
    )


def slots_of(setup: Setup, engine: Engine, lengths: Sequence[float]) -> int:
    """Sequences that decode together: rollout.max_concurrent, or as many as fit the cache with the mean of their contexts over time.

    Raises no error where not even one fits; `polaris.plan.advice` refuses that.
    """
    context = setup.prompt + sum(length * length for length in lengths) / (2 * sum(lengths))
    return max(1, min(setup.max_concurrent, int(engine.tokens / context)))


def decode_seconds(lengths: Sequence[float], prompt: int, slots: int, rates: Decoding) -> float:
    """Seconds of one engine for responses of these lengths, the longest first, of which `slots` run at a time."""
    waiting = list(reversed(lengths))
    running: list[tuple[float, float]] = []
    """Of each sequence the step after which it ends, and that before its first."""
    now, context, seconds = 0.0, 0.0, len(lengths) * prompt * rates.prefill
    while waiting or running:
        while waiting and len(running) < slots:
            heapq.heappush(running, (now + waiting.pop(), now))
            context += prompt
        sequences, steps = len(running), running[0][0] - now
        seconds += steps * rates.seconds(sequences) + rates.token * steps * (context + sequences * steps / 2)
        now += steps
        context += sequences * steps
        while running and running[0][0] <= now + 1e-6:
            end, start = heapq.heappop(running)
            context -= prompt + end - start
    return seconds
