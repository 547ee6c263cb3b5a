"""The whole recipe by the real program: killed once in every phase and started again, it ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from programs import Program

from polaris.embedded import resolve
from polaris.observe.metrics import deterministic, read_records
from polaris.observe.run_files import read_run

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "embedded-recipe.toml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = [
    "--rollout.engine=transformers",
    "--rollout.max_concurrent=32",
    "--trainer.prompts_per_step=8",
    "--trainer.cpu_threads=1",
    "--stage.0.steps=3",
    "--stage.1.steps=3",
    "--checkpoint.every=2",
    "--eval.every=3",
    "--eval.samples_per_prompt=1",
    "--probe.temperatures=[0.6, 0.8, 1.0]",
    "--probe.prompts=16",
    "--observe.tensorboard=false",
]
SETS = {"large": 1, "small": 2}
"""Weights of the two sets of prompts: an epoch takes the small one whole, and half as many of the large one."""
# What is there once a phase has begun, in the order of the phases.
BEGUN = {
    "difficulty": lambda run: _lines(run / "stages/difficulty.partial.jsonl") > 1,
    "first probe": lambda run: (run / "stages/unfinished-temperature-1.json").is_file(),
    "first stage": lambda run: _step(run) >= 1,
    "second probe": lambda run: (run / "stages/stage-1.json").is_file(),
    "second stage": lambda run: _step(run) >= 5,
    "evaluation": lambda run: any(_lines(path) > 0 for path in run.glob("stages/evaluation/step-000006/rope-1/samples-*.jsonl")),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    rows = {name: Path(resolve(f"embedded:{name}")).read_text().splitlines(keepends=True) for name in ("train", "test")}
    for name, some in {"large": rows["train"][:64], "small": rows["train"][64:96], "test": rows["test"][:24]}.items():
        (folder / f"{name}.jsonl").write_text("".join(some))
    tables = "".join(f'\n[[data.sets]]\npath = "{folder}/{name}.jsonl"\nweight = {weight}\n' for name, weight in SETS.items())
    (folder / "sets.toml").write_text(CONFIG.read_text().replace('path = "embedded:train"\n', "") + tables)
    return folder


def start(sets, root, name, config=None):
    data = [f"--eval.path={sets / 'test.jsonl'}", f'--final.suite=["{sets / "test.jsonl"}"]']
    return Program("-m", "polaris.train", config or sets / "sets.toml", f"--root={root}", f"--name={name}", *data, *SMALL)


def finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]


def test_killed_once_in_every_phase_it_ends_with_the_same_numbers(sets, tmp_path):
    finish(start(sets, tmp_path, "straight"))
    for phase, begun in BEGUN.items():
        process = start(sets, tmp_path, "killed")
        while not begun(tmp_path / "killed"):
            assert process.poll() is None, f"the run ended before {phase} was seen: {process.communicate()[1][-2000:]}"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(sets, tmp_path, "killed"))
    straight, killed = (outcome(tmp_path / name) for name in ("straight", "killed"))
    assert killed == straight
    assert [record["step"] for record in straight["records"] if "reward/mean" in record] == [1, 2, 3, 4, 5, 6]
    shares = [record["data/small/prompts"] for record in straight["records"] if "reward/mean" in record]
    assert 0.4 < sum(shares) / 6 < 0.9
    assert {record["stage"] for record in straight["records"]} == {0, 1}
    assert (tmp_path / "killed" / "report.html").is_file()
    assert (tmp_path / "killed" / "export" / "step-000006" / "model.safetensors").is_file()

    extend(sets, tmp_path)


def extend(sets, root):
    """A stage that is appended to a finished run trains on from its weights, is exported and evaluated beside what was there."""
    before = outcome(root / "straight")
    longer, run = root / "longer.toml", root / "straight"
    longer.write_text((sets / "sets.toml").read_text() + "\n[[stage]]\nsteps = 1\ntemperature = 0.7\n")
    finish(start(sets, root, "straight", longer))
    assert [record for record in outcome(run)["records"] if record["step"] <= 6] == before["records"]
    assert _step(run) == 7
    for step in ("step-000006", "step-000007"):
        assert (run / "stages" / "evaluation" / step / "result.md").is_file()
        assert (run / "export" / step / "model.safetensors").is_file()
    assert read_run(run).evaluation["settings"]["model"]["path"].endswith("step-000007")


def outcome(run):
    """Everything that the phases have found, without what clocks say."""
    stages = {path.name: json.loads(path.read_text()) for path in (run / "stages").glob("*.json")}
    stages["difficulty.json"].pop("seconds")
    evaluation = json.loads((run / "stages/evaluation/step-000006/result.json").read_text())
    records = [deterministic(record) for record in read_records(run / "metrics.jsonl")]
    prompts = pq.read_table(run / "prompts.parquet").to_pylist()
    return {"records": records, "stages": stages, "evaluation": evaluation["results"], "prompts": prompts}


def _lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _step(run):
    return max((record["step"] for record in read_records(run / "metrics.jsonl") if "reward/mean" in record), default=0)
