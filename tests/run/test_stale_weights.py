"""The proof of sync on the real engine and after real updates: fresh weights pass, those of the step before are caught."""

from pathlib import Path

import pytest

from polaris.checkpoint.state import TrainState
from polaris.config.load import load_config
from polaris.run.serve import measure_gap, serve_weights
from polaris.run.setup import check, open_rooms
from polaris.run.step import train_step
from polaris.stop import StopRequest
from polaris.sync.probe import WeightSyncError

# The first run on a new machine builds the embedded model.
pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow]
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "embedded-grpo.toml"
START = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)


@pytest.fixture(params=["float32", "bfloat16"])
def rooms(request, world, tmp_path):
    pytest.importorskip("vllm")
    settings = {"model.dtype": request.param, "rollout.engine": "vllm", "root": tmp_path, "eval.path": "", "trainer.cpu_threads": 1}
    config = load_config(CONFIG, [f"--{name}={value}" for name, value in settings.items()])
    with open_rooms(check(config), world, StopRequest()) as rooms:
        yield rooms


def test_an_engine_that_keeps_the_weights_of_the_step_before_is_caught(rooms, monkeypatch):
    serve_weights(rooms, 0)
    state, record, _ = train_step(rooms, START)
    fresh = record["sync/logprob_gap"]
    assert fresh <= rooms.yardstick.tolerance
    published, load = [[(name, weight.clone()) for name, weight in rooms.policy.named_weights()]], type(rooms.engine).load_weights

    def load_the_previous(engine, weights, version):
        published.append([(name, weight.clone()) for name, weight in weights])
        load(engine, published[-2], version)

    monkeypatch.setattr(type(rooms.engine), "load_weights", load_the_previous)
    with pytest.raises(WeightSyncError, match=r"version 2.*other weights than the trainer holds"):
        train_step(rooms, state)
    stale = measure_gap(rooms.engine, rooms.policy, rooms.probe, rooms.world)
    assert stale > rooms.yardstick.tolerance
    dtype, yardstick = rooms.config.model.dtype, rooms.yardstick
    print(f"{dtype}: yardstick {yardstick.gap:.2e}, allowed {yardstick.tolerance:.2e}, fresh {fresh:.2e}, one step old {stale:.2e}")
