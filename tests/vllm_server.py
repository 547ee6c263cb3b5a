"""vLLM's own server on this machine, as a user starts one for `rollout.servers`."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from polaris.model.rope import resolve_rope
from polaris.rollout.server_check import Wanted

ROOT = Path(__file__).resolve().parents[1]
KEY = "a secret"
MOST, MAX_LEN = 16, 400
"""Sequences that the server decodes together, and their tokens."""


def wanted(folder):
    return Wanted(model_path=folder, dtype="float32", max_model_len=MAX_LEN, most=MOST, rope=resolve_rope(folder))


@contextmanager
def serving(command, python_path, log, key):
    """Process and port of a server that is just being started by `command`, with what a test adds to it."""
    words = shlex.split(command)
    words[words.index("python")] = sys.executable
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words += f"--host 127.0.0.1 --port {port} --enforce-eager --kv-cache-memory-bytes {32 << 20}".split()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), python_path]),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less: the worker is in that of the engine, as on one GPU
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_API_KEY": key,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(["env", *words], stdout=out, stderr=out, env=environment, start_new_session=True, cwd=ROOT)
    try:
        yield process, port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        print(log.read_text()[-5000:])  # shown where a test fails
