"""Peaks of memory of small models on this machine's CPU, from the allocator's own events, beside the plan's.

    python -m benchmarks.plan.peaks            # writes benchmarks/results/plan-peaks_*

One rank trains one pack of one sequence. The trace begins before an update, when weights and moments are there, and ends after it. The
vocabulary is small, since the head on a CPU works otherwise than on a GPU; there are no fused modules; attention is torch's own for a CPU.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3Config

from benchmarks.step.train_step import build_step
from polaris.config.lora import LoraConfig
from polaris.config.model import MemoryConfig, ModelConfig
from polaris.config.schema import RunConfig
from polaris.plan.cards import card_named
from polaris.plan.memory import state_of, update_of
from polaris.plan.setup import ITEMSIZE, Setup, Stage, adapters_of
from polaris.plan.shape import shape_of

RESULTS = Path(__file__).resolve().parents[1] / "results"
RUNGS = ("keep", "recompute_mlp", "recompute", "offload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, a pack and a rung."""

    hidden: int
    inner: int
    layers: int
    heads: int
    tokens: int
    dtype: str = "bfloat16"
    activations: str = "recompute"
    vocabulary: int = 512
    rank: int = 0
    """Of adapters; 0 trains all weights."""

    @property
    def run(self) -> RunConfig:
        return RunConfig(
            model=ModelConfig(dtype=self.dtype, lora=LoraConfig(rank=self.rank)), memory=MemoryConfig(activations=self.activations)
        )

    @property
    def config(self) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads // 2,
            head_dim=64,
            max_position_embeddings=131_072,
            tie_word_embeddings=True,
        )


SMALL = Case(hidden=256, inner=768, layers=2, heads=4, tokens=1024)
CASES = (
    *(Case(hidden=512, inner=1536, layers=6, heads=8, tokens=2048, activations=rung) for rung in RUNGS),
    Case(hidden=512, inner=1536, layers=6, heads=8, tokens=1024),
    Case(hidden=512, inner=1536, layers=6, heads=8, tokens=2048, rank=16),
    Case(hidden=512, inner=1536, layers=6, heads=8, tokens=2048, dtype="float32"),
    *(Case(hidden=896, inner=4864, layers=24, heads=14, tokens=1024, activations=rung) for rung in RUNGS),
)
"""Each rung; another length, adapters, the other dtype; and each rung of the shape of Qwen2.5-0.5B, but for its vocabulary."""


def traced(run: Callable[[], object]) -> int:
    """The most bytes that torch's allocator has given out beyond what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def measure(case: Case) -> int:
    """Bytes at the peak of an update beyond weights and moments. AdamW is fused, as on a GPU: its other form has temporaries of its own."""
    from polaris.distributed import mesh
    from polaris.learn import optimizer

    with tempfile.TemporaryDirectory() as folder, patch.object(optimizer, "_of_gpu", lambda parameter: True):
        try:
            step = build_step(case.config, Path(folder), case.tokens, case.run)
            step()
            return traced(step)
        finally:
            mesh.stop()


def planned(case: Case) -> float:
    """The same by the plan. What `offload` puts into host memory is the same memory here."""
    with tempfile.TemporaryDirectory() as folder:
        case.config.save_pretrained(folder)
        shape = shape_of(Path(folder))
    setup = Setup(
        shape=shape,
        card=card_named("H100"),
        gpus=1,
        itemsize=ITEMSIZE[case.dtype],
        fused=False,
        activations="recompute" if case.activations == "offload" else case.activations,
        tokens_per_pack=case.tokens,
        prompt=0,
        engine="none",
        stages=(Stage(steps=1, response=case.tokens),),
        one_pack=True,
        adapters=adapters_of(shape, LoraConfig(rank=case.rank)),
    )
    parts, waiting = update_of(setup), sum(state_of(setup, gradients=False).values())
    return sum(parts.values()) - parts["reserve"] - waiting


def committed() -> Iterator[tuple[Case, int]]:
    """The cases of the newest result and the bytes that were measured."""
    newest = max(RESULTS.glob("plan-peaks_*.json"))
    for row in json.loads(newest.read_text())["rows"]:
        measured = row.pop("measured")
        yield Case(**row), measured


def main() -> None:
    rows = []
    for case in CASES:
        rows.append(asdict(case) | {"measured": measure(case)})
        print(rows[-1], f"planned {planned(case):,.0f}", file=sys.stderr, flush=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    result = {"subject": "plan-peaks", "rows": rows, "date": str(date.today()), "hardware": "cpu-2-cores", "versions": versions}
    path = RESULTS / f"plan-peaks_cpu-2-cores_{date.today()}.json"
    path.write_text(json.dumps(result | {"command": "python -m benchmarks.plan.peaks"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
