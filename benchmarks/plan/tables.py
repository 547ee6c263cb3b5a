"""The tables of docs/plan.md.

python -m benchmarks.plan.tables            # writes them into docs/plan.md, between its marks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.plan import published
from benchmarks.plan.peaks import RESULTS, committed, planned
from benchmarks.plan.shapes import shape
from polaris.config.lora import LoraConfig
from polaris.plan.advice import ADVISED_RANK, best_rungs
from polaris.plan.cards import CARDS, GIB, card_named
from polaris.plan.memory import update_of
from polaris.plan.setup import Setup, Stage, adapters_of
from polaris.plan.speed import step_time

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plan.md"
MODELS = ("Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B", "Qwen3-14B", "Qwen3-32B")
LENGTHS = (8192, 32_768, 65_536)
HOST_GIB = 256
"""Host memory for each GPU."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def setup(model: str, card: str, count: int, response: int) -> Setup:
    """A plain run on so many GPUs, in nodes of 8: the defaults of a configuration and its recipe's batch, 128 prompts x 8 responses."""
    gpus = min(8, count)
    stages = (Stage(steps=1, response=response),)
    return Setup(shape=shape(model), card=card_named(card), gpus=gpus, nodes=count // gpus, stages=stages, host_gib=HOST_GIB * gpus)


def sizes(card: str = "H100 80GB") -> Iterator[str]:
    """What each model needs on so many GPUs, and how fast a step then is."""
    yield f"| model | response | {' | '.join(str(count) for count in COUNTS)} |"
    yield "|---" * (2 + len(COUNTS)) + "|"
    for model in MODELS:
        for response in LENGTHS:
            cells = " | ".join(_cell(setup(model, card, count, response)) for count in COUNTS)
            yield f"| {model[6:]} | {response // 1024}K | {cells} |"


def _cell(plain: Setup) -> str:
    found = best_rungs(plain)
    marks = ""
    if found is None:
        found, marks = best_rungs(replace(plain, adapters=adapters_of(plain.shape, LoraConfig(rank=ADVISED_RANK)))), "l"
    if found is None:
        return "-"
    marks += _marks(plain, found)
    speed = f"{step_time(found, found.stages[0]).tokens_per_gpu:,.0f}"
    return f"{speed} {marks}".strip()


def _marks(plain: Setup, found: Setup) -> str:
    letters = {"keep": "", "recompute_mlp": "", "recompute": "", "offload": "a"}
    marks = letters[found.activations]
    marks += {"device": "", "8bit": "b", "host": "h"}[found.optimizer]
    marks += f"s{found.sequence_parallel}" if found.sequence_parallel > 1 else ""
    marks += f"p{found.tokens_per_pack // 1024}" if found.tokens_per_pack != plain.tokens_per_pack else ""
    marks += f"t{found.tensor_parallel}" if found.tensor_parallel > 1 else ""
    return marks + (f"f{100 * found.fraction:.0f}" if found.fraction != plain.fraction else "")


def cards() -> Iterator[str]:
    yield "| `--gpu` | GiB | HBM, GB/s | dense bf16, TFLOP/s | products hold | attention holds | link, GB/s | host, GB/s | network, GB/s |"
    yield "|---" * 9 + "|"
    for card in CARDS:
        rates = f"{card.hbm:,.0f} | {card.matrix:,.0f} | {card.products:,.0f} | {card.attention:,.0f}"
        yield f"| {card.name} | {card.gib:g} | {rates} | {card.link:g} | {card.host:g} | {card.network:g} |"


def peaks() -> Iterator[str]:
    """Planned peaks beside measured ones: on one H200, then on a CPU."""
    yield "| where | model | pack | activations | measured, GiB | planned, GiB | off by |"
    yield "|---" * 7 + "|"
    measured = json.loads((RESULTS / "step_nvidia-h200_2026-11-28.json").read_text())["rows"]
    for row in measured:
        tokens, found = row["parameters"]["tokens"], row["facts"]["peak GiB"]
        parts = update_of(published.trainer("Qwen3-4B", "H200", 1, tokens))
        yield _peak("one H200", "Qwen3-4B, bfloat16", tokens, "recompute", found, (sum(parts.values()) - parts["reserve"]) / GIB)
    for case, bytes_found in committed():
        model = f"{case.layers} layers of {case.hidden}, {case.dtype}{f', LoRA of rank {case.rank}' if case.rank else ''}"
        yield _peak("CPU", model, case.tokens, case.activations, bytes_found / GIB, planned(case) / GIB)


def _peak(where: str, model: str, tokens: int, kind: str, measured: float, expected: float) -> str:
    digits = 1 if measured > 10 else 3
    figures = f"{measured:.{digits}f} | {expected:.{digits}f} | {expected / measured - 1:+.1%}"
    return f"| {where} | {model} | {tokens:,} | {kind} | {figures} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {"sizes": sizes, "peaks": peaks, "published": published.table, "cards": cards}


def filled(text: str) -> str:
    """The page with each table of `TABLES` between its marks."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + "\n".join(make()) + "\n" + end + after
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
