"""Which status stands for torchrun's own failure, and when its traceback stays."""

import logging
import signal
import sys

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from polaris.distributed.torchrun import _end, _is_news, handler, is_ours, status_of


def failed(*codes):
    return ChildFailedError("polaris", {rank: ProcessFailure(rank, 100 + rank, code, "") for rank, code in enumerate(codes)})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (failed(2), 2),
        (failed(1, 1), 1),
        (failed(-signal.SIGTERM, 2), 2),
        (failed(143, -signal.SIGTERM), 143),
        (failed(143, 2), 2),
        (failed(143, 130), 130),
        (failed(-signal.SIGTERM), None),
        (failed(3), None),
        (failed(3, -signal.SIGKILL), None),
        (SignalException("stopped", signal.SIGINT), 130),
        (SignalException("stopped", signal.SIGTERM), 143),
        (OSError("another"), None),
    ],
    ids=str,
)
def test_the_status_is_that_of_the_first_rank_that_said_why(error, status):
    said = []
    assert status_of(error) == status
    if status is None:
        _end(lambda *facts: said.append(facts), type(error), error, None)
        assert said == [(type(error), error, None)], "torchrun's own words stay"
        return
    with pytest.raises(SystemExit) as ended:
        _end(lambda *facts: said.append(facts), type(error), error, None)
    assert ended.value.code == status
    assert said == []


def test_of_ranks_that_were_killed_the_first_is_named(capsys):
    error = failed(1, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGTERM)
    for rank, second in enumerate((5, 9, 7, 4)):
        error.failures[rank].timestamp = second
    with pytest.raises(SystemExit) as ended:
        _end(lambda *facts: pytest.fail("torchrun's own words"), type(error), error, None)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("polaris: rank 2 (process 102) was killed by SIGSEGV. What is finished is on disk")


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["torchrun", "-m", "polaris.train", "x.toml"], True),
        (["torchrun", "/somewhere/polaris.train.py"], True),
        (["torchrun", "-m", "polaris.evaluate"], True),
        (["torchrun", "train.py"], False),
        (["torchrun", "polaris.other"], False),
    ],
)
def test_other_programs_are_left_alone(command, ours):
    assert is_ours(command) == ours


def test_what_the_ranks_have_said_torchrun_does_not_say_again(monkeypatch, caplog):
    log = logging.getLogger("torch.distributed.elastic.multiprocessing.api")
    monkeypatch.setattr(sys, "argv", ["torchrun", "-m", "polaris.train"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handler()
    try:
        for message in ("Sending process %s closing signal", "failed (exitcode: 2) of %s", "all went well with %s"):
            log.warning(message, 7)
    finally:
        log.removeFilter(_is_news)
    assert caplog.messages == ["all went well with 7"]
