"""How a command ends that fails: one line for what comes from outside, a traceback for the rest, and never a wait."""

import errno
import os
import subprocess
import sys

import pytest

WORK = """
import sys
from polaris.session import run_session

def work(prepared, world, stop):
    {work}

sys.exit(run_session(lambda: {prepare}, work))
"""


def session(tmp_path, work="pass", prepare="None", ranks=1):
    script = tmp_path / "session.py"
    script.write_text(WORK.format(work=work, prepare=prepare))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *torchrun, str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (f"OSError({errno.ENOSPC}, 'No space left on device', '/disk/file')", "No space left on device: '/disk/file'; make room"),
        ("RuntimeError('[gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:5')", "another rank is gone: see its message"),
    ],
)
def test_what_comes_from_outside_is_one_line(tmp_path, error, line):
    result = session(tmp_path, f"raise {error}")
    assert result.returncode == 1
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_defect_is_a_traceback_and_status_1(tmp_path):
    result = session(tmp_path, "raise KeyError('x')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_that_fails_alone_ends_those_that_wait_for_it(tmp_path):
    result = session(tmp_path, "world.barrier() if world.rank else exec('raise KeyError(5)')", ranks=2)
    assert result.returncode == 1
    assert "KeyError: 5" in result.stderr


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_with_bad_input_of_its_own_says_so_and_nobody_waits(tmp_path):
    prepare = "int('none') if __import__('os').environ['RANK'] == '1' else 0"
    result = session(tmp_path, prepare=prepare, ranks=2)
    assert result.returncode != 0
    assert "polaris, rank 1: invalid literal" in result.stderr
