"""Step times that others have published, and ours, beside what the plan's model makes of the same runs.

    python -m benchmarks.plan.published

The constants of `polaris.plan.cards` are the same for every row. What a row's software or data adds, and the plan does not know, is in
`OWN`: each number is taken from one row, which says so, and holds for all others of its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.plan.shapes import shape
from polaris.config.lora import LoraConfig
from polaris.plan.cards import RATES, card_named
from polaris.plan.setup import Setup, Stage, adapters_of
from polaris.plan.speed import StepTime, optimizer_seconds, step_time, train_seconds, work_of

CALIBRATED, PREDICTED, MISSED = "calibrated on", "predicted", "not reproduced"
WITHIN = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published number of seconds, the plan's without and with the source's own costs, and which it is."""

    source: str
    what: str
    published: float
    plain: float
    planned: float
    kind: str = PREDICTED
    why: str = ""

    @property
    def error(self) -> float:
        return self.planned / self.published - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What the sources' software and data add."""

    prime_pack: float = 0.94
    """Seconds that prime-rl takes for a micro-batch beside what grows with its tokens: its LoRA row on one H100 at 16K."""
    prime_moments: float = 15.5e9
    """Bytes/s of a node at which prime-rl moves Adam's moments (8 bytes a parameter) from the host and back, once for the two micro-batches
    of its step: its row of 8 H200 at 16K. That it does so is read in its code of 2026-08, where it is the default (`optim_cpu_offload`); on
    one GPU nothing of it shows."""
    verl_mean: float = 1893.0
    """Mean tokens of a response in verl's runs, which are not published: the update on 32 cards."""


OWN = Own()


def rows() -> Iterator[Row]:
    yield from ours()
    yield from prime_rl()
    yield polaris()
    yield from verl()


def trainer(model: str, card: str, gpus: int, tokens: int, *, lora: bool = False, third: bool = True) -> Setup:
    """One pack of `tokens` tokens on each GPU, without an engine; attention by FlashAttention-3 or, on request, 2."""
    kind = card_named(card)
    kind = replace(kind, attention=RATES.attention_3 * kind.matrix) if third else kind
    stages = (Stage(steps=1, response=tokens),)
    sizes = shape(model)
    return Setup(
        shape=sizes,
        card=kind,
        gpus=gpus,
        engine="none",
        adapters=adapters_of(sizes, LoraConfig(rank=16)) if lora else 0,
        tokens_per_pack=tokens,
        prompt=0,
        prompts=gpus,
        samples=1,
        stages=stages,
        mean_share=1.0,
        one_pack=True,
    )


def pack_seconds(setup: Setup) -> float:
    return train_seconds(setup, [setup.pack] * setup.gpus, work_of(setup)) + optimizer_seconds(setup)


def ours() -> Iterator[Row]:
    """Polaris's own step, one H200, FlashAttention-2."""
    source = "Polaris (benchmarks/results/step_nvidia-h200_2026-11-28.md)"
    for tokens, seconds, kind in ((16_384, 2.099, CALIBRATED), (32_768, 6.301, PREDICTED), (65_536, 20.869, CALIBRATED)):
        planned = pack_seconds(trainer("Qwen3-4B", "H200", 1, tokens, third=False))
        yield Row(source=source, what=f"4B, {tokens:,} tokens, one H200", published=seconds, plain=planned, planned=planned, kind=kind)


def prime_rl() -> Iterator[Row]:
    """prime-rl's BENCHMARKS.md of 2026-02-01, seconds of a micro-batch: trainer only, FlashAttention-3, layers recomputed."""
    for model, lora, gpus, card, tokens, seconds, kind in (
        ("Qwen3-4B", False, 8, "H200", 65_536, 17.75, PREDICTED),
        ("Qwen3-4B", False, 8, "H100", 65_536, 18.10, PREDICTED),
        ("Qwen3-4B", False, 8, "H200", 16_384, 4.78, CALIBRATED),
        ("Qwen3-4B", False, 8, "H100", 16_384, 5.04, PREDICTED),
        ("Qwen3-4B", True, 8, "H200", 65_536, 15.68, CALIBRATED),
        ("Qwen3-4B", True, 8, "H200", 16_384, 2.50, CALIBRATED),
        ("Qwen3-4B", True, 1, "H100", 65_536, 15.74, PREDICTED),
        ("Qwen3-4B", True, 1, "H100", 16_384, 2.63, CALIBRATED),
        ("Qwen3-0.6B", False, 1, "H100", 65_536, 6.46, PREDICTED),
        ("Qwen3-0.6B", False, 1, "H100", 16_384, 1.38, PREDICTED),
    ):
        setup = trainer(model, card, gpus, tokens, lora=lora)
        plain = pack_seconds(setup)
        moments = 0.0 if lora or gpus == 1 else 8 * setup.shape.parameters / OWN.prime_moments  # there and back, a half each
        what = f"{model[6:]} {'LoRA' if lora else 'full'}, {tokens // 1024}K, {gpus} x {card}"
        yield Row(source="prime-rl", what=what, published=seconds, plain=plain, planned=plain + OWN.prime_pack + moments, kind=kind)


def polaris() -> Row:
    """POLARIS's Qwen3-4B on 32 H800 (issue 18: 0.33 h a step over all stages), by its own scripts' lengths, batch and old log-prob pass."""
    stages = tuple(Stage(steps=steps, response=limit) for steps, limit in ((450, 39_936), (150, 48_128), (100, 52_224)))
    setup = Setup(
        shape=shape("Qwen3-4B"), card=card_named("H800"), gpus=8, nodes=4, passes=1, optimizer="host", stages=stages, tokens_per_pack=53_248
    )
    seconds = sum(stage.steps * step_time(setup, stage).seconds for stage in stages) / sum(stage.steps for stage in stages)
    return Row(source="POLARIS #18", what="4B, a step, 32 H800", published=1188, plain=seconds, planned=seconds)


@cache
def verl_step(gpus: int) -> StepTime:
    """verl's fully_async.md, "colocate sync": Qwen2.5-Math-7B, 512 prompts x 16, 28K, updates of 32 prompts; tensor parallel 4, Ulysses 4,
    FSDP over 8 (its dapo_7b_math_fsdp2 scripts)."""
    limit, nodes = 28_672, gpus // 8
    setup = Setup(
        shape=shape("Qwen2.5-Math-7B"),
        card=card_named("H20"),
        gpus=8,
        nodes=nodes,
        prompt=2048,
        prompts=512,
        samples=16,
        updates=16,
        passes=1,
        sequence_parallel=4,
        replicas=nodes,
        tensor_parallel=4,
        tokens_per_pack=15_360,
        stages=(Stage(steps=1, response=limit),),
        mean_share=OWN.verl_mean / limit,
    )
    return step_time(setup, setup.stages[0])


_OTHER_LENGTHS = "64 cards sample 2.4 times as fast as 32, and 128 slower than 64: the runs' lengths differ"
_OLD_PASS = "verl's pass for old log-probs takes 40 to 53 % of its update, and a forward is a quarter of the work"
_SMALL_UPDATES = "an update of 512 responses gives each group of 4 cards 16, of very different lengths"


def verl() -> Iterator[Row]:
    for gpus, step, sampling, old, update in (
        (32, 790.10, 357.41, 107.71, 269.80),
        (64, 365.28, 150.72, 70.26, 133.41),
        (128, 356.30, 177.85, 53.92, 113.81),
    ):
        found, where = verl_step(gpus), f"7B, {gpus} H20"
        named = (("step", step, found.seconds), ("generation", sampling, found.sampling), ("update", update, found.update))
        for name, published, planned in (*named, ("old log-probs", old, found.passes)):
            kind = CALIBRATED if (name, gpus) == ("update", 32) else PREDICTED
            if abs(planned / published - 1) > WITHIN:
                kind = MISSED
            why = {"generation": _OTHER_LENGTHS, "old log-probs": _OLD_PASS, "update": _SMALL_UPDATES}.get(name, "")
            why = why if kind == MISSED else ""
            yield Row(source="verl", what=f"{where}: {name}", published=published, plain=planned, planned=planned, kind=kind, why=why)


def table() -> Iterator[str]:
    yield "| source | run | published, s | the plan's model alone | with the source's own costs | off by | |"
    yield "|---" * 7 + "|"
    for row in rows():
        own = f"{row.planned:,.2f}" if row.planned < 100 else f"{row.planned:,.0f}"
        plain = f"{row.plain:,.2f}" if row.plain < 100 else f"{row.plain:,.0f}"
        kind = f"{row.kind}{f': {row.why}' if row.why else ''}"
        yield f"| {row.source} | {row.what} | {row.published:,.2f} | {plain} | {own} | {row.error:+.0%} | {kind} |"


if __name__ == "__main__":
    print("\n".join(table()))
