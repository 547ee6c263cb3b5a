"""8-bit moments by torchao (`make peers` brings it): as good as AdamW's, a quarter of their bytes, and lost by no checkpoint."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from polaris.checkpoint import layout
from polaris.checkpoint.saver import Saver
from polaris.checkpoint.store import TrainState, begin_with
from polaris.config.model import MemoryConfig
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig, SftDataConfig
from polaris.config.training import CheckpointConfig, DistributedConfig, OptimizerConfig
from polaris.errors import Refused
from polaris.learn.eight_bit import decoded, encode, is_coded, parts
from polaris.learn.optimizer import build_optimizer, last_learning_rate, set_learning_rate
from polaris.run import banner, checks
from polaris.supervised import checks as sft_checks
from tests.programs import run_ranks

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs torchao, which make peers brings and make test-peers runs this with"
)
SETTINGS = OptimizerConfig(name="adamw8bit", lr=1e-2, beta2=0.99, weight_decay=0.1)


@pytest.fixture
def eager():
    """torchao's step without its compilation, which takes seconds for each shape."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def curve(model, optimizer, steps):
    """Losses of a regression whose targets a network of its size can learn."""
    generator, losses = torch.Generator().manual_seed(1), []
    for step in range(steps):
        inputs = torch.randn(256, 128, generator=generator)
        loss = (model(inputs) - inputs[:, :8].sum(1, keepdim=True)).square().mean()
        loss.backward()
        set_learning_rate(optimizer, 1e-2 * min(1.0, (step + 1) / 5))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses)


@needs_torchao
def test_it_learns_as_adamw_does_with_a_quarter_of_the_bytes(eager):
    mine, theirs = network(), network()
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(mine, SETTINGS)
    found = curve(mine, optimizer, 60)
    expected = curve(theirs, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=SETTINGS.eps), 60)
    assert expected[-10:].mean() < 0.5 * expected[:10].mean()
    assert (found[-10:].mean() / expected[-10:].mean()).item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(found, expected)
    assert last_learning_rate(optimizer) == pytest.approx(1e-2)
    large = mine[0].weight
    assert sum(part.nbytes for part in parts(optimizer.state[large]["exp_avg"])) == large.numel() * (1 + 4 / 256)
    assert not is_coded(optimizer.state[mine[0].bias]["exp_avg"])


@needs_torchao
@pytest.mark.slow
def test_the_compiled_step_is_that_step(eager):
    def stepped():
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(16, 256))
        optimizer = build_optimizer(nn.ParameterList([weight]), SETTINGS)
        for step in range(2):
            weight.grad = torch.randn(16, 256, generator=torch.Generator().manual_seed(step))
            set_learning_rate(optimizer, 1e-2 / (step + 1))
            optimizer.step()
        return weight.detach()

    plain = stepped()
    torch.compiler.set_stance("default")
    torch.testing.assert_close(stepped(), plain, rtol=1e-5, atol=1e-6)


VALUES = {
    "zeros": torch.zeros(512),
    "largest is negative": -torch.arange(512.0),
    "largest is positive": torch.arange(512.0),
    "of many magnitudes": torch.randn(512, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(512).remainder(20).sub(15),
    "below the smallest scale": 1e-13 * torch.randn(512, generator=torch.Generator().manual_seed(1)),
    "subnormal": 1e-40 * torch.randn(512, generator=torch.Generator().manual_seed(2)),
    "one subnormal": torch.cat([torch.tensor([-3.0, 1e-41]), torch.zeros(510)]),
}


@needs_torchao
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq"])
def test_what_a_checkpoint_holds_is_near_and_rounds_to_the_same_codes(values, kind):
    values = values.repeat(8).view(16, 256)
    values = values if kind == "exp_avg" else values.abs()
    state = build_optimizer(nn.ParameterList([nn.Parameter(values.clone())]), SETTINGS).state
    moment = next(iter(state.values()))[kind]
    encode(moment, values)
    codes, scales = (part.clone() for part in parts(moment))
    written = decoded(moment)
    assert (written - values).abs().max() <= 0.0142 * max(values.abs().max().item(), 1e-12)
    encode(moment, torch.full_like(values, 3.0))
    encode(moment, written)
    assert torch.equal(codes, parts(moment)[0])
    assert torch.equal(scales, parts(moment)[1])


def saved(folder, world, model, optimizer):
    state = TrainState(step=1, version=1, sampler={}, nonfinite_streak=0)
    with Saver(folder, CheckpointConfig(asynchronous=False), DistributedConfig(), world, lambda saved: None, lambda note: None) as saver:
        saver.save(state, model, optimizer)
    return layout.step_folder(folder, 1)


@needs_torchao
@pytest.mark.parametrize(("before", "after"), [("adamw8bit", "adamw"), ("adamw", "adamw8bit")])
def test_either_adamw_goes_on_from_the_other(world, tmp_path, eager, before, after):
    model = fully_shard(network(), mesh=world.mesh)
    optimizer = build_optimizer(model, OptimizerConfig(name=before, lr=1e-2))
    curve(model, optimizer, 5)
    found = fully_shard(network(), mesh=world.mesh)
    other = build_optimizer(found, OptimizerConfig(name=after, lr=1e-2))
    begin_with(saved(tmp_path, world, model, optimizer), found, other)
    for mine, theirs in zip(model.parameters(), found.parameters(), strict=True):
        assert torch.equal(mine.full_tensor(), theirs.full_tensor())
        assert optimizer.state[mine]["step"] == other.state[theirs]["step"] == 5
        assert is_coded(other.state[theirs]["exp_avg"]) == (after == "adamw8bit" and theirs.numel() >= 4096)
        for kind in ("exp_avg", "exp_avg_sq"):
            moments = [one.to_local() for one in (optimizer.state[mine][kind], other.state[theirs][kind])]
            first, second = (decoded(one) if is_coded(one) else one for one in moments)
            assert (first - second).abs().max() <= (0 if before == "adamw8bit" else 0.015) * first.abs().max()
    assert curve(found, other, 5)[-1] == pytest.approx(curve(model, optimizer, 5)[-1].item(), rel=0.02)


@needs_torchao
@pytest.mark.distributed
@pytest.mark.slow
def test_a_resumed_run_is_the_undisturbed_one_on_any_number_of_ranks(tmp_path):
    program = Path(__file__).with_name("eight_bit_on_ranks.py")
    [alone] = [json.loads(said) for said in run_ranks(1, program, tmp_path)]
    both = [json.loads(said) for said in run_ranks(2, program, tmp_path)]
    assert [facts["coded"] for facts in (alone, *both)] == [2, 2, 2]
    assert all(facts["same state"] and facts["same run"] for facts in (alone, *both))
    assert both[0]["of one rank"] == pytest.approx(alone["losses"], rel=1e-3)


def test_without_torchao_a_start_is_refused_before_a_model_is_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    sft = SftConfig(data=SftDataConfig(path="nowhere.jsonl"), optimizer=SETTINGS)
    for check, config in ((checks.check, RunConfig(optimizer=SETTINGS)), (sft_checks.examine, sft)):
        with pytest.raises(Refused, match=r"needs torchao 0\.18.*pip install 'polaris-rl\[8bit\]'.* or set optimizer\.name to \"adamw\""):
            check(config)


def test_the_start_shows_it():
    assert banner.memory(RunConfig(optimizer=SETTINGS)) == {"memory": "optimizer adamw8bit"}


def test_moments_in_host_memory_stay_float32():
    with pytest.raises(Refused, match=r'set optimizer\.name to "adamw", or memory\.optimizer to "device"'):
        RunConfig(optimizer=SETTINGS, memory=MemoryConfig(optimizer="host"))
