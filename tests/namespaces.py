"""Two machines on this one: network namespaces with a cable between them, which can be pulled. It needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from programs import forked

ADDRESSES = ("10.77.0.1", "10.77.0.2")


class Machines:
    """Two namespaces, 0 and 1, at ADDRESSES; each has an end of the cable."""

    def __init__(self) -> None:
        self._names = [f"polaris-{os.getpid()}-{machine}" for machine in range(2)]
        self._ends = [f"pv{os.getpid() % 100_000}-{machine}" for machine in range(2)]

    def build(self) -> None:
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
        for name, end, address in zip(self._names, self._ends, ADDRESSES, strict=True):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", end, "up")

    def destroy(self) -> None:
        for name in self._names:
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
                subprocess.run(["kill", "-9", pid])
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def torchrun(
        self,
        machine: int,
        ranks: int,
        *command: str | Path,
        environment: Mapping[str, str],
        words: IO[str] | int = subprocess.PIPE,
        restarts: int = 0,
    ) -> subprocess.Popen[str]:
        """The part of one machine in a job of both; `command` as that of `Program`. `words`: where to it writes."""
        options = [
            "--nnodes=2",
            f"--nproc-per-node={ranks}",
            f"--node-rank={machine}",
            f"--master-addr={ADDRESSES[0]}",
            "--master-port=29500",
            f"--max-restarts={restarts}",
        ]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options, "--no-python", *forked()]
        program = ["ip", "netns", "exec", self._names[machine], *torchrun, *map(str, command)]
        own = {"GLOO_SOCKET_IFNAME": self._ends[machine], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(program, env={**os.environ, **own, **environment}, text=True, stdout=words, stderr=subprocess.STDOUT)

    def pull(self) -> None:
        """Pull the cable."""
        _ip("-n", self._names[0], "link", "set", self._ends[0], "down")

    def plug(self) -> None:
        """Put it back."""
        _ip("-n", self._names[0], "link", "set", self._ends[0], "up")


@contextmanager
def machines() -> Iterator[Machines]:
    """Two machines; the test is skipped where they cannot be made."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need root and iproute2")
    made = Machines()
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        yield made
    finally:
        made.destroy()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
