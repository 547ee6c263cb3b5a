"""What stands for a command that is forked."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import programs


def test_a_signal_after_its_command_has_ended_changes_nothing(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        stands_for = subprocess.Popen([*programs.forked()[:3], str(tmp_path / "door"), "file.py"], stderr=subprocess.PIPE, text=True)
        client, _ = door.accept()
        for descriptor in socket.recv_fds(client, programs.LARGEST, 3)[1]:
            os.close(descriptor)
        client.send(b"%d" % ended.pid)
        while not catches(stands_for.pid, signal.SIGTERM):
            time.sleep(0.01)
        stands_for.send_signal(signal.SIGTERM)
        client.send(b"3")
        assert stands_for.communicate(timeout=30)[1] == ""
        assert stands_for.returncode == 3


def catches(process: int, number: int) -> bool:
    caught = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
