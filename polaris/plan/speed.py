"""Seconds of a step by phase: what a model of products, bandwidths and links makes of a `Setup`.

FLOPs of a token in training: 2 for each weight it is multiplied with forward, 4 backward (2 where weights are frozen), 2 more where layers
compute again; causal attention 2 x length x width a layer forward, 2.5 times that backward (FlashAttention), and once more where it is
computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from polaris.plan.activations import layer
from polaris.plan.cards import RATES, Rates
from polaris.plan.decode import decode_seconds, decoding_of, slots_of
from polaris.plan.lengths import lengths
from polaris.plan.memory import engine_of
from polaris.plan.setup import Setup, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOPs of a token: in products, and in attention for each token of its sequence's length; and bytes that HBM moves for it besides."""

    products: float
    attention: float
    moved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step of a stage, and tokens that it trains."""

    sampling: float
    update: float
    passes: float
    turn: float
    tokens: float
    gpus: int
    separate: bool = False

    @property
    def seconds(self) -> float:
        """Of a step; engines on GPUs of their own sample while the others train."""
        trained = self.update + self.passes
        return self.turn + (max(self.sampling, trained) if self.separate else self.sampling + trained)

    @property
    def tokens_per_gpu(self) -> float:
        """Tokens/s of prompts and responses, over all GPUs of the job."""
        return self.tokens / self.seconds / self.gpus


def work_of(setup: Setup, rates: Rates = RATES) -> Work:
    """Of forward and backward together. A forward moves a quarter of the bytes, as it does where it is done again."""
    shape = setup.shape
    backward = 2 if setup.adapters else 4
    mlp = 3 * shape.hidden * shape.inner * shape.layers
    again = {"keep": 0.0, "recompute_mlp": mlp, "recompute": shape.matrices, "offload": shape.matrices}[setup.activations]
    products = (2 + backward) * (shape.matrices + shape.head) + 2 * again
    attention = 2 * shape.query * shape.layers * (3.5 if setup.activations in ("keep", "recompute_mlp") else 4.5)
    moved = _moved(setup, rates) * (1 if setup.activations in ("recompute", "offload") else 0.75)
    return Work(products=products, attention=attention, moved=moved)


def forward_work(setup: Setup, rates: Rates = RATES) -> Work:
    shape = setup.shape
    return Work(
        products=2 * (shape.matrices + shape.head),
        attention=2 * shape.query * shape.layers,
        moved=_moved(setup, rates) / 4,
    )


def _moved(setup: Setup, rates: Rates) -> float:
    one = layer(setup.shape, setup.fused, setup.itemsize)
    return rates.passes * setup.itemsize * setup.shape.layers * (one.attention + one.mlp + setup.shape.hidden)


def compute_seconds(setup: Setup, work: Work, tokens: float, squares: float) -> float:
    """Of one rank, for so many tokens whose sequences' lengths have this sum of squares."""
    card = setup.card
    each = work.products / (card.products * 1e12) + work.moved / (card.hbm * 1e9)
    return tokens * each + squares * work.attention / (card.attention * 1e12)


def traffic_seconds(setup: Setup, gradients: bool, rates: Rates = RATES) -> float:
    """What one pack's passes make FSDP and host memory move on one rank: weights gathered forward and backward, gradients reduced."""
    shape, n, card = setup.shape, setup.shards, setup.card
    gathered = setup.itemsize * shape.parameters * (1 + gradients)
    reduced = 4 * setup.trained if gradients and not setup.adapters else 0
    inside = min(n, setup.gpus)
    seconds = (gathered + reduced) * (1 - 1 / inside) / (card.link * 1e9 * rates.collective)
    if n > setup.gpus:
        seconds = max(seconds, (gathered + reduced) / (setup.gpus * card.network * 1e9 * rates.collective))
    if setup.optimizer == "host":
        moved = (4 * (1 + gradients) + 4 * gradients) * setup.trained / n
        seconds = max(seconds, moved / (card.host * 1e9 * rates.travel))
    if setup.activations == "offload" and gradients:
        moved = 2 * setup.itemsize * setup.pack * shape.layers * shape.hidden
        seconds = max(seconds, moved / (card.host * 1e9 * rates.travel))
    return seconds


def exchange_seconds(setup: Setup, tokens: float, rates: Rates = RATES) -> float:
    """Ulysses' all-to-alls of so many tokens on one rank: queries, keys, values and output, forward, again and backward."""
    if setup.sequence_parallel == 1:
        return 0.0
    shape = setup.shape
    numbers = 2 * (shape.query + shape.key) * shape.layers * tokens
    apart = setup.sequence_parallel > setup.gpus
    return 3 * setup.itemsize * numbers / ((setup.card.network if apart else setup.card.link) * 1e9 * rates.collective)


def optimizer_seconds(setup: Setup, rates: Rates = RATES) -> float:
    """One step on one rank's shard: 28 bytes a parameter on the device, more passes on the host."""
    parameters = setup.trained / setup.shards
    if setup.optimizer == "host":
        return parameters * rates.host_step / rates.host
    return parameters * 28 / (setup.card.hbm * 1e9 * rates.reading)


def train_seconds(setup: Setup, found: Sequence[float], work: Work, gradients: bool = True, rates: Rates = RATES) -> float:
    """Passes over sequences of these lengths by all ranks; the longest alone bounds it from below."""
    shares = max(1, setup.ranks // setup.sequence_parallel)
    total, squares = sum(found), sum(length * length for length in found)
    tokens, longest = total / setup.ranks, max(found)
    mean = compute_seconds(setup, work, tokens, squares / setup.ranks)
    alone = compute_seconds(setup, work, longest / setup.sequence_parallel, longest**2 / setup.sequence_parallel)
    seconds = max(mean * (rates.balance if shares > 1 else 1), alone) + exchange_seconds(setup, tokens, rates)
    packs = max(1, ceil(tokens / setup.pack))
    return max(seconds, packs * traffic_seconds(setup, gradients, rates))


def step_time(setup: Setup, stage: Stage, rates: Rates = RATES) -> StepTime:
    """One step of a stage."""
    count = setup.prompts * setup.samples
    responses = lengths(count, setup.mean_share * stage.response, stage.response)
    sequences = [setup.prompt_mean + length for length in responses]
    parts = [sequences[i :: setup.updates] for i in range(setup.updates)]
    update = sum(train_seconds(setup, part, work_of(setup, rates), rates=rates) for part in parts)
    update += setup.updates * optimizer_seconds(setup, rates)
    passes = setup.passes * train_seconds(setup, sequences, forward_work(setup, rates), gradients=False, rates=rates)
    return StepTime(
        sampling=sampling_seconds(setup, responses, rates),
        update=update,
        passes=passes,
        turn=rates.turn if setup.engine != "none" else 0.0,
        tokens=sum(sequences),
        gpus=setup.gpus * setup.nodes,
        separate=setup.engine == "separate",
    )


def sampling_seconds(setup: Setup, responses: Sequence[float], rates: Rates = RATES) -> float:
    """Of the engine that has most to do; responses are dealt out, longest first."""
    engine = engine_of(setup)
    if engine is None:
        return 0.0
    own = responses[:: max(1, setup.engines)]
    return decode_seconds(own, setup.prompt_mean, slots_of(setup, engine, own), decoding_of(setup, engine, rates))
