"""Processes of engines (`polaris.distributed.supervise.Process`) without the imports that each would begin with, as `programs` starts
commands: where FORK_ENGINES is set, the process of a rank first forks one that forks them later, and does nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

from fork_server import serve
from programs import Program, _number

from polaris.distributed import supervise


class Engine(Program):
    """As much of `subprocess.Popen` as `supervise.Process` needs. It ends with the rank."""

    def __init__(self, command: list[str], stdin: int, pass_fds: tuple[int], start_new_session: bool, env: dict[str, str]) -> None:
        assert start_new_session
        self.returncode = None
        reading, writing = os.pipe()
        self._status, written = os.pipe()
        with tempfile.TemporaryFile() as file:  # it is larger than a message
            file.write(json.dumps({"command": command[1:], "folder": os.getcwd(), "environment": env}).encode())
            socket.send_fds(_nursery, [b"."], [file.fileno(), reading, *pass_fds, written])
        os.close(reading)
        os.close(written)
        self.stdin = os.fdopen(writing, "wb")
        self.pid = _number(self._status)


def hatch(request: dict[str, Any]) -> dict[str, Any]:
    """In the process of a rank: `request`. In that of each engine that it starts later: what that one is to run."""
    global _nursery
    rank = os.getpid()
    _nursery, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        its.close()
        supervise.subprocess = SimpleNamespace(Popen=Engine, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
        return request
    _nursery.close()
    supervise.end_with_parent(rank)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    served = serve(its, tied=True)
    if served is None:
        os._exit(0)
    its.close()
    _, (file, stdin, pipe) = served
    with open(file, "rb") as written:
        written.seek(0)
        engine = json.load(written)
    os.dup2(stdin, 0)
    os.close(stdin)
    module, name, _, _ = engine["command"]
    sys.path[1:] = engine["environment"]["PYTHONPATH"].split(os.pathsep)
    return engine | {"command": [module, name, str(pipe), str(os.getppid())]}


_nursery: socket.socket
