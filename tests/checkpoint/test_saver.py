"""Training goes on while a checkpoint is written; a second save waits for the first; what fails is said."""

import threading
import time
from contextlib import suppress

import pytest
import torch
from saving import open_saver
from torch.distributed.checkpoint import FileSystemWriter

from polaris.checkpoint import layout, staging
from polaris.checkpoint.store import TrainState, load
from polaris.config.training import OptimizerConfig
from polaris.learn.optimizer import build_optimizer

SLOW_S = 0.8


def state_of(step):
    return TrainState(step=step, version=step, sampler={}, nonfinite_streak=0)


def train(policy, optimizer, value):
    """All weights are `value`, and so are their first moments."""
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, value)
        parameter.grad = torch.full_like(parameter, 10 * value)
    for group in optimizer.param_groups:
        group |= {"lr": 0.0, "weight_decay": 0.0, "betas": (0.9, 0.999)}
    optimizer.state.clear()
    optimizer.step()


def values_of(policy, optimizer):
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in policy.parameters()]
    return {round(float(value), 4) for tensor in (*policy.parameters(), *moments) for value in tensor.full_tensor().detach().unique()}


class Storage:
    """A storage writer that waits until `go` is set; `most` is how many wrote at once."""

    def __init__(self, monkeypatch):
        self.go, self.begun, self.most, self._now = threading.Event(), threading.Event(), 0, 0
        write = FileSystemWriter.write_data

        def slowly(writer, *arguments):
            self._now += 1
            self.most = max(self.most, self._now)
            self.begun.set()
            assert self.go.wait(60)
            self._now -= 1
            return write(writer, *arguments)

        monkeypatch.setattr(FileSystemWriter, "write_data", slowly)


@pytest.fixture
def storage(monkeypatch):
    return Storage(monkeypatch)


@pytest.fixture
def optimizer(trainer):
    return build_optimizer(trainer[0], OptimizerConfig())


def test_training_goes_on_during_a_slow_write_and_a_second_save_waits(trainer, optimizer, storage, tmp_path):
    (policy, world), heard = trainer, []
    with open_saver(tmp_path, world, on_saved=heard.append) as saver:
        train(policy, optimizer, 1.0)
        saver.save(state_of(1), policy, optimizer)
        assert storage.begun.wait(60)
        for value in (2.0, 3.0):
            train(policy, optimizer, value)
            saver.look()
        assert (heard, layout.complete_steps(tmp_path)) == ([], [])
        saver.waited_s()
        threading.Timer(SLOW_S, storage.go.set).start()
        saver.save(state_of(3), policy, optimizer)
        assert [saved.step for saved in heard] == [1]
        assert saver.waited_s() > SLOW_S / 2, "it is said how long training stood still"
        assert saver.waited_s() == 0.0
        train(policy, optimizer, 4.0)
    assert [(saved.step, saved.folder) for saved in heard] == [(step, layout.step_folder(tmp_path, step)) for step in (1, 3)]
    assert storage.most == 1
    for step in (1, 3):
        assert load(layout.step_folder(tmp_path, step), policy, optimizer, world).step == step
        assert values_of(policy, optimizer) == {float(step)}, "as it was at the save"


def test_a_save_under_way_is_finished_after_a_failure(trainer, optimizer, storage, tmp_path):
    policy, world = trainer
    threading.Timer(SLOW_S, storage.go.set).start()
    with suppress(ZeroDivisionError), open_saver(tmp_path, world) as saver:
        saver.save(state_of(5), policy, optimizer)
        raise ZeroDivisionError
    assert layout.complete_steps(tmp_path) == [5]


@pytest.mark.parametrize("short", [True, False], ids=["too little memory", "asynchronous = false"])
def test_without_a_copy_training_waits(trainer, optimizer, storage, tmp_path, monkeypatch, short):
    (policy, world), heard, notes = trainer, [], []
    threading.Timer(SLOW_S, storage.go.set).start()
    if short:
        monkeypatch.setattr(staging, "free_host_memory", lambda: 1.0)
    with open_saver(tmp_path, world, on_saved=heard.append, note=notes.append, asynchronous=short) as saver:
        began = time.monotonic()
        saver.save(state_of(1), policy, optimizer)
        assert time.monotonic() - began > SLOW_S / 2
        assert [saved.step for saved in heard] == [1]
        assert saver.waited_s() > SLOW_S / 2
    assert ["too little memory for a copy" in note for note in notes] == [True] * short
