"""A command in the place of this process, but for its imports: `python -SE forked.py SOCKET -m MODULE ...`, or FILE ...; see
`programs.forked`."""

import contextlib
import json
import os
import signal
import socket
import sys


def main() -> None:
    """Ask for the command, in this folder, environment and network; pass signals on to it, and end as it does."""
    path, *command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        asked.connect(path)
        request = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(asked, [json.dumps(request).encode()], [1, 2, os.open("/proc/self/ns/net", os.O_RDONLY)])
        process = int(asked.recv(32))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: signal_to(process, number))
        status = int(asked.recv(32))
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def signal_to(process: int, number: int) -> None:
    """As `os.kill`, for a process that may have ended: another one waits for it, and may have done so."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


if __name__ == "__main__":
    main()
