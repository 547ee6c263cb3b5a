"""How a command ends: status and one line for what comes from outside or was asked for, a traceback for the rest, and never a wait."""

import errno
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from programs import Program, forked

from polaris.distributed.torchrun import is_ours, status_of

pytestmark = pytest.mark.usefixtures("as_declared")
WORK = """
import os, signal, sys, time
from polaris.errors import RunFailed
from polaris.rollout.types import GenerationInterrupted
from polaris.run.session import run_session

def work(prepared, world, stop):
    {work}

sys.exit(run_session(lambda: {prepare}, work))
"""
UNTIL_STOPPED = """os.write(1, b"READY\\n")  # in one piece, whatever the other rank writes
    while not world.any(stop.requested()):
        time.sleep(0.05)
    if world.is_main:
        time.sleep(1.5)  # it saves while the others are done
        print("saved", flush=True)
    {end}"""


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def launch(tmp_path, work="pass", prepare="None"):
    return Program(write(tmp_path, work, prepare))


def torchrun(tmp_path, work="pass", prepare="None", real=False):
    """Two ranks, which `real` has start as a user's do."""
    start = () if real else ("--no-python", *forked())
    command = [*TORCHRUN, *start, write(tmp_path, work, prepare)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def write(tmp_path, work, prepare):
    script = tmp_path / "polaris.train.py"
    script.write_text(WORK.format(work=work, prepare=prepare))
    return script


def ended(process):
    stdout, stderr = process.communicate(timeout=100)
    return SimpleNamespace(returncode=process.returncode, stdout=stdout, stderr=stderr)


@pytest.mark.parametrize(
    ("number", "status", "end"), [(signal.SIGINT, 130, "return"), (signal.SIGTERM, 143, "raise GenerationInterrupted")]
)
def test_a_request_to_stop_is_the_status_after_all_is_saved(tmp_path, number, status, end):
    result = ended(launch(tmp_path, f"os.kill(os.getpid(), {int(number)})\n    " + UNTIL_STOPPED.format(end=end)))
    assert result.returncode == status
    assert "saved" in result.stdout
    assert result.stderr == ""
    assert ("the same command goes on from there" in result.stdout) == (end != "return")


def test_a_second_signal_ends_at_once(tmp_path):
    result = ended(
        launch(tmp_path, "signal.raise_signal(signal.SIGTERM)\n    signal.raise_signal(signal.SIGINT)\n    print('saved', flush=True)")
    )
    assert result.returncode == 130
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["train x.toml", "difficulty x.toml", "temperature x.toml", "eval --model=m --suite=s"])
def test_signals_are_heard_before_anything_slow_is_imported(command):
    lines = (
        "import sys; from polaris.run import session",
        "session.run_session = lambda *facts: sys.exit('torch' in sys.modules)",
        f"sys.argv = ['polaris', *{command.split()}]; from polaris.cli import main; main()",
    )
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], timeout=60).returncode == 0


@pytest.mark.distributed
@pytest.mark.slow
def test_ranks_stop_together_and_torchrun_with_their_status_where_one_of_them_was_told_to(tmp_path):
    told = "world.rank and os.kill(os.getpid(), signal.SIGTERM)\n    " + UNTIL_STOPPED.format(end="return")
    result = ended(torchrun(tmp_path, told))
    assert result.returncode == 143
    assert "saved" in result.stdout
    assert result.stderr == ""


@pytest.mark.distributed
@pytest.mark.slow
def test_ctrl_c_of_torchrun_is_passed_on_and_waited_for(tmp_path):
    process = torchrun(tmp_path, UNTIL_STOPPED.format(end="return"), real=True)
    assert process.stdout.readline() == process.stdout.readline() == "READY\n"
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.returncode == 130
    assert "saved" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.distributed
@pytest.mark.slow
def test_what_all_ranks_refuse_is_one_line_on_the_screen_and_status_2(tmp_path):
    result = ended(torchrun(tmp_path, prepare="int('none')", real=True))
    assert result.returncode == 2
    assert result.stderr == "polaris: invalid literal for int() with base 10: 'none'\n"


@pytest.mark.distributed
@pytest.mark.slow
def test_what_all_ranks_fail_of_is_one_line_on_the_screen_and_status_1(tmp_path):
    result = ended(torchrun(tmp_path, "raise RunFailed('the loss is not finite')"))
    assert result.returncode == 1
    assert result.stderr == "polaris: the loss is not finite\n"


def failures(*codes):
    kind = type("ChildFailedError", (Exception,), {})
    error = kind()
    error.failures = {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(codes)}
    return error


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ((2, 2), 2),
        ((-15, 143), 143),
        ((1, -15, -15), 1),
        ((130,), 130),
        ((-9, 1), None),
        ((-11,), None),
        ((-15, -15), None),
        ((3, 1), None),
    ],
)
def test_torchrun_lists_the_ranks_that_could_not_say_why_they_ended(codes, status):
    assert status_of(failures(*codes)) == status
    assert status_of(KeyError("x")) is None


def test_other_programs_of_torchrun_are_left_alone():
    assert is_ours(["torchrun", "--nproc-per-node=2", "-m", "polaris.train", "x.toml"])
    assert not is_ours(["torchrun", "train.py", "polaris.toml"])
    assert not is_ours(["torchrun", "-m", "verl.polaris", "output=runs/polaris"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (f"OSError({errno.ENOSPC}, 'No space left on device', '/disk/file')", "No space left on device: '/disk/file'; make room"),
        ("RuntimeError('[gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:5')", "another rank is gone: see its message"),
        ("__import__('torch').OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')", "take a rung of docs/memory.md"),
    ],
)
def test_what_comes_from_outside_is_one_line(tmp_path, error, line):
    result = ended(launch(tmp_path, f"raise {error}"))
    assert result.returncode == 1
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_defect_is_a_traceback_and_status_1(tmp_path):
    result = ended(launch(tmp_path, "raise KeyError('x')"))
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_that_fails_alone_ends_those_that_wait_for_it(tmp_path):
    result = ended(torchrun(tmp_path, "world.barrier() if world.rank else exec('raise KeyError(5)')"))
    assert result.returncode == 1
    assert f"\npolaris, rank 0 on {socket.gethostname()}, at the start: KeyError: 5 (see its traceback)\n" in result.stderr
    fails = "from polaris.distributed import watch\n    with watch.phase('update'):\n        watch.mark('pack 1 of 2')\n"
    fails += "        exec('raise RunFailed(5)') if world.rank else world.barrier()"
    result = ended(torchrun(tmp_path, fails))
    assert result.returncode == 1
    assert f"polaris, rank 1 on {socket.gethostname()}, in update, pack 1 of 2: 5" in result.stderr.splitlines()


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_with_bad_input_of_its_own_says_so_and_nobody_waits(tmp_path):
    prepare = "int('none') if __import__('os').environ['RANK'] == '1' else 0"
    result = ended(torchrun(tmp_path, prepare=prepare))
    assert result.returncode == 2
    assert result.stderr.startswith("polaris, rank 1: invalid literal")
    assert result.stderr.endswith(f" (on {socket.gethostname()})\n")
    assert len(result.stderr.splitlines()) == 1


IN_A_PROGRAM = """
import errno, signal
from polaris.config.training import DistributedConfig
from polaris.errors import Refused, RunFailed
from polaris.rollout.types import GenerationInterrupted
from polaris.run.session import run_here

def told(world, stop):
    signal.raise_signal(signal.SIGTERM)
    if stop.requested():
        raise GenerationInterrupted

def fails(error):
    def work(world, stop):
        raise error
    return work

for work in (lambda world, stop: None, told, *map(fails, (Refused("a"), OSError(errno.ENOSPC, "full"), KeyError("x")))):
    try:
        print(run_here(work, DistributedConfig()))
    except (Exception, SystemExit) as error:
        print(type(error).__name__, error)
"""


def test_a_users_own_program_gets_errors_and_its_status_after_a_signal():
    result = subprocess.run([sys.executable, "-c", IN_A_PROGRAM], capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] + lines[4:] == ["None", "SystemExit 143", "Refused a", "KeyError 'x'"]
    assert lines[3].startswith(f"RunFailed [Errno {errno.ENOSPC}] full; make room")


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_of_a_users_own_program_that_fails_ends_those_that_wait_for_it(tmp_path):
    script = tmp_path / "polaris.train.py"
    work = "lambda world, stop: world.barrier() if world.rank else exec('raise KeyError(5)')"
    script.write_text(IN_A_PROGRAM.partition("def told")[0] + f"run_here({work}, DistributedConfig())\n")
    result = subprocess.run([*TORCHRUN, "--no-python", *forked(), script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert "KeyError: 5" in result.stderr
