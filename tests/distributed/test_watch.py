"""A rank that hangs, dead or alive, is named by those that wait for it, within the limit of the phase."""

import os
import subprocess
import sys
import time

import pytest

WORK = """
import ctypes, os, signal, sys, time
import torch, torch.distributed as dist
from polaris.config.training import DistributedConfig
from polaris.distributed import watch
from polaris.run.session import run_session

watch.BEAT_S = 0.5

def stuck():
    {stuck}

def work(prepared, world, stop):
    if world.rank == 0 and {before}:
        signal.signal(signal.SIGTERM, signal.SIG_DFL), time.sleep(1000)
    with watch.phase({phase!r}):
        watch.mark("pack 1 of 2")
        if world.rank == 1:
            stuck()
        dist.all_reduce(torch.ones(1), group=world.mesh.get_group())
    world.barrier()

limits = DistributedConfig(update_timeout_minutes={minutes}, wait_timeout_hours={hours})
sys.exit(run_session(lambda: None, work, lambda _: limits))
"""

# It holds the interpreter's lock, as a hang inside an extension does; torchrun can end it.
SILENT = "signal.signal(signal.SIGTERM, signal.SIG_DFL); ctypes.PyDLL(None).sleep(1000)"


def run(tmp_path, stuck, phase="update", minutes=0.05, hours=1.0, before=False):
    script = tmp_path / "session.py"
    script.write_text(WORK.format(stuck=stuck, phase=phase, minutes=minutes, hours=hours, before=before))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}
    began = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    return result, time.monotonic() - began


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stuck", "line"),
    [
        (SILENT, "rank 1 HANGS: its process has no heartbeat"),
        ("time.sleep(1000)", "rank 1 HANGS, is slow, or waits for its GPU: pack 1 of 2, for"),
    ],
    ids=["its interpreter hangs", "its interpreter lives"],
)
def test_a_rank_that_hangs_is_named(tmp_path, stuck, line):
    result, seconds = run(tmp_path, stuck)
    assert result.returncode != 0
    assert "no progress for 0.05 minutes (distributed.update_timeout_minutes) at: pack 1 of 2" in result.stderr
    told = next(part for part in result.stderr.split("polaris, rank ") if "no progress" in part)
    ranks = told.split("The ranks:")[1].strip().splitlines()
    assert ranks[0].strip().startswith(line), told
    assert "stuck" in ranks[0] or "heartbeat" in ranks[0]
    assert [text.split(":")[0].strip() for text in ranks[1:3]] == ["rank 0 waits for others", "rank 2 waits for others"]
    assert "the same command goes on from there" in told
    assert seconds < 60


@pytest.mark.distributed
@pytest.mark.slow
def test_the_first_rank_is_named_too_where_it_hangs_outside_of_the_update_that_the_others_wait_in(tmp_path):
    result, _ = run(tmp_path, "pass", before=True)
    assert result.returncode != 0
    told = result.stderr.split("The ranks:")
    assert len(told) == 2, "one rank speaks"
    assert told[1].strip().startswith("rank 0 HANGS, is slow, or waits for its GPU: start, for"), told[1]


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_that_samples_longer_than_an_update_may_take_is_waited_for(tmp_path):
    result, _ = run(tmp_path, "time.sleep(6)", phase="rollout")
    assert result.returncode == 0, result.stderr
    assert "no progress" not in result.stderr
