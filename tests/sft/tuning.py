"""Runs of `polaris sft` in this process, or on the ranks that torchrun has started: `torchrun tests/sft/tuning.py CONFIG [OVERRIDES]`."""

import json
import sys

from polaris import sft
from polaris.checkpoint import run_folder
from polaris.observe.metrics import deterministic, read_records
from polaris.run.session import run_here

ROWS = [f"What is {a} plus {b}?" for a in range(6) for b in range(4)]


def write_config(folder, **sections):
    """A small fine-tuning of the embedded model, in `folder`; the path of its configuration."""
    rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"It is {len(text) * 7}."}]} for text in ROWS]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = {
        "name": '"run"',
        "root": f'"{folder}"',
        "model": '{ path = "embedded:model", dtype = "float32" }',
        "memory": '{ activations = "keep" }',
        "data": f'{{ path = "{folder}/chats.jsonl" }}',
        "optimizer": "{ lr = 1e-3 }",
        "trainer": "{ steps = 4, examples_per_step = 8, cpu_threads = 1 }",
        "eval": "{ fraction = 0.2, every = 2 }",
        "observe": "{ tensorboard = false }",
    } | sections
    path = folder / "sft.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    return path


def tune(path, *overrides):
    """Fine-tune, and return the run's folder."""
    prepared = sft.prepare([str(path), *overrides])
    try:
        run_here(lambda world, stop: sft.work(prepared, world, stop), prepared[0].config.distributed)
    finally:
        run_folder.release()
    return prepared[1].path


def records(folder):
    return [deterministic(record) for record in read_records(folder / "metrics.jsonl")]


if __name__ == "__main__":
    tune(*sys.argv[1:])
