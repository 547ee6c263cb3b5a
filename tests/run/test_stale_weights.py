"""The proof of sync on the real engine and after real updates: fresh weights pass, those of the step before are caught."""

from pathlib import Path

import pytest

from polaris.checkpoint.store import TrainState
from polaris.config.load import load_config
from polaris.run.checks import check
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.stop import StopRequest
from polaris.sync.probe import WeightSyncError
from polaris.sync.publish import measure_gap

# The first run on a new machine builds the embedded model.
pytestmark = [pytest.mark.timeout(600), pytest.mark.vllm, pytest.mark.slow]
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
START = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)


@pytest.fixture(params=["float32", "bfloat16"])
def context(request, world, tmp_path):
    pytest.importorskip("vllm")
    settings = {"model.dtype": request.param, "rollout.engine": "vllm", "root": tmp_path, "eval.path": "none", "trainer.cpu_threads": 1}
    config = load_config(CONFIG, [f"--{name}={value}" for name, value in settings.items()])
    with open_training(check(config), world, StopRequest()) as context:
        yield context


def test_an_engine_that_keeps_the_weights_of_the_step_before_is_caught(context, monkeypatch):
    engine, learner, proof = context.sampling.engine, context.learner, context.source.proof
    context.source.publish(learner.weights(), 0)
    state, record, _ = train_step(context, START)
    fresh, yardstick = record["sync/logprob_gap"], proof.yardstick
    assert fresh <= yardstick.tolerance
    published, load = [[(name, weight.clone()) for name, weight in learner.weights()]], type(engine).load_weights

    def load_the_previous(engine, weights, version):
        published.append([(name, weight.clone()) for name, weight in weights])
        load(engine, published[-2], version)

    monkeypatch.setattr(type(engine), "load_weights", load_the_previous)
    with pytest.raises(WeightSyncError, match=r"version 2.*other weights than the trainer"):
        train_step(context, state)
    stale = measure_gap(engine, proof.probe, learner.logprobs, learner.world)
    assert stale > yardstick.tolerance
    dtype = context.config.model.dtype
    print(f"{dtype}: yardstick {yardstick.gap:.2e}, allowed {yardstick.tolerance:.2e}, fresh {fresh:.2e}, one step old {stale:.2e}")
