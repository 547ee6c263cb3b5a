"""Polaris as a contestant: `run_polaris.py polaris-ENGINE[-RANKS]`, its own context and `train_step`, on configs/quickstart.toml."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from workload import LEARNING_RATE, MAX_RESPONSE_TOKENS, PROMPTS, SAMPLES, reserve_stdout, serve

from polaris.config.load import load_config
from polaris.distributed import mesh
from polaris.run.checks import check
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.stop import StopRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"


def main(engine: str, root: str) -> None:
    from polaris.checkpoint.run_folder import open_run

    overrides = {
        "root": root,
        "rollout.engine": engine,
        "rollout.samples_per_prompt": SAMPLES,
        "rollout.max_response_tokens": MAX_RESPONSE_TOKENS,
        "trainer.prompts_per_step": PROMPTS,
        "trainer.cpu_threads": os.environ["OMP_NUM_THREADS"],
        "optimizer.lr": LEARNING_RATE,
    }
    config = load_config(CONFIG, [f"--{key}={value}" for key, value in overrides.items()])
    answers, world = reserve_stdout(), mesh.start()
    config = replace(config, root=world.gather([root] if world.is_main else [])[0])
    checked, folder = check(config), open_run(config, fresh=False, main=world.is_main)
    with open_training(checked, world, StopRequest()) as context:
        state = resume(context, folder)

        def step() -> dict[str, Any]:
            nonlocal state
            state, record, _ = train_step(context, state)
            facts = {key: value for key, value in record.items() if key.startswith("seconds/")}
            return facts | {"response_tokens": record["response/length_mean"] * PROMPTS * SAMPLES}

        def together() -> dict[str, Any]:
            world.any(True)
            return step()

        if world.is_main:
            serve(together, answers)
            world.any(False)
        else:
            while world.any(False):
                step()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as runs:
        main(sys.argv[1].split("-")[1], runs)
