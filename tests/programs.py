"""Commands of Polaris in processes of their own, without the imports that each would begin with (ten seconds): see `fork_server`.

`python -m torch.distributed.run` and commands whose imports or start are tested are started by `subprocess`; `forked` is for those that
a program started so starts.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fork_server import LARGEST
from forked import signal_to

SERVER = Path(__file__).with_name("fork_server.py")
CLIENT = Path(__file__).with_name("forked.py")


class Program:
    """As `subprocess.Popen`; what it writes is there once it has ended."""

    def __init__(
        self, *command: str | Path, folder: str | Path = ".", environment: Mapping[str, str] | None = None, together: bool = False
    ) -> None:
        """`python *command` in `folder`, where `command` is `-m MODULE ...` or `FILE ...`. `together`: stderr goes to stdout."""
        self.returncode: int | None = None
        self._out = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._err = self._out if together else tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._together = together
        self._status, written = os.pipe()
        request = {"command": [*map(str, command)], "folder": os.path.abspath(folder), "environment": dict(environment or os.environ)}
        socket.send_fds(_server(), [json.dumps(request).encode()], [self._out.fileno(), self._err.fileno(), written])
        os.close(written)
        self.pid = _number(self._status)

    def poll(self) -> int | None:
        return self.returncode if not self._ends_within(0) else self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, or minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            if not self._ends_within(timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = _number(self._status)
            os.close(self._status)
        return self.returncode

    def _ends_within(self, timeout: float | None) -> bool:
        return self.returncode is None and bool(select.select([self._status], [], [], timeout)[0])

    def so_far(self) -> str:
        """What it has written to stderr."""
        size = os.fstat(self._err.fileno()).st_size
        return os.pread(self._err.fileno(), size, 0).decode()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended."""
        self.wait(timeout)
        said = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read())
        return said[0], "" if self._together else said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal_to(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(*command: str | Path, check: bool = False, **how: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with the output captured; the arguments are those of `Program`."""
    program = Program(*command, **how)
    try:
        stdout, stderr = program.communicate()
    finally:  # a test that takes too long
        program.kill()
    if check and program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command, stdout, stderr)
    return subprocess.CompletedProcess(command, program.returncode, stdout, stderr)


def start_ranks(count: int, *command: str | Path) -> list[Program]:
    """The ranks of a process group, started with the variables that torchrun sets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    places = [group | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
    variables = [{name: str(value) for name, value in place.items()} for place in places]
    return [Program(*command, environment=os.environ | of_rank) for of_rank in variables]


def run_ranks(count: int, *command: str | Path) -> list[str]:
    """What each rank of a process group writes to stdout; all must end with status 0."""
    ranks = start_ranks(count, *command)
    try:
        while None in (ended := [rank.poll() for rank in ranks]) and not any(ended):
            time.sleep(0.02)
    finally:
        for rank in ranks:
            rank.kill()
    outputs = [rank.communicate() for rank in ranks]
    failed = [f"status {rank.returncode}: {errors[-3000:]}" for rank, (_, errors) in zip(ranks, outputs, strict=True) if rank.returncode]
    assert not failed, "\n".join(failed)
    return [said for said, _ in outputs]


def forked() -> list[str]:
    """What stands for `python` in the command line of another program, as torchrun's for its ranks: see `forked.py`."""
    return [sys.executable, "-SE", str(CLIENT), _door()]


def forked_python(folder: Path) -> str:
    """An executable in `folder` that stands for `sys.executable` likewise."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(forked())} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return str(python)


@functools.cache
def _door() -> str:
    """The path of a socket at which `forked.py` asks for its command."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    _server()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(os.path.join(folder, "door"))
    door.listen()
    threading.Thread(target=_admit, args=(door,), daemon=True).start()
    return str(door.getsockname())


def _admit(door: socket.socket) -> None:
    while True:
        threading.Thread(target=_stand_in, args=(door.accept()[0],), daemon=True).start()


def _stand_in(client: socket.socket) -> None:
    """Have a client's command run. It is killed if the client is."""
    with client:
        message, descriptors, _, _ = socket.recv_fds(client, LARGEST, 3)
        status, written = os.pipe()
        socket.send_fds(_server(), [message], [*descriptors, written])
        for descriptor in (*descriptors, written):
            os.close(descriptor)
        command = _number(status)
        client.send(b"%d" % command)
        if client in select.select([client, status], [], [])[0]:
            signal_to(command, signal.SIGKILL)
        ended = _number(status)
        os.close(status)
        with contextlib.suppress(OSError):  # the client is gone
            client.send(b"%d" % ended)


def _number(status: int) -> int:
    """The next line of the fork server: the process id, then the exit status."""
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(status, 1)
        assert read, "the fork server ended"
        line += read
    return int(line)


@functools.cache
def _server() -> socket.socket:
    """The socket of the fork server, which ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    command = [sys.executable, str(SERVER), str(its.fileno())]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], env=environment, stdin=subprocess.DEVNULL)
    its.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours
