"""A command in the place of this process, but for its imports: `python -SE forked.py SOCKET -m MODULE ...`, or FILE ...; see
`programs.forked`."""

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
            signal.signal(number, lambda number, frame: os.kill(process, number))
        status = int(asked.recv(32))
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
