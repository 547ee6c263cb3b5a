"""A process that has imported what the commands of Polaris need, and forks for each: `python fork_server.py DESCRIPTOR`.

Every message on the socket is a command in JSON, with three or four descriptors: its stdout, its stderr, its network namespace if it has
another one, and where its process id and its exit status are written. The end of the socket is the end of this process.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path

LARGEST = 1 << 17
"""Bytes of a message."""
MODULES = (
    "polaris.run.setup",
    "polaris.recipe.job",
    "polaris.evaluation.run",
    "polaris.supervised.job",
    "polaris.observe.charts",
    "polaris.observe.report",
    "polaris.rollout.transformers_engine",
    "transformers.models.qwen3.modeling_qwen3",
)
OF_VLLM = (
    "polaris.rollout.vllm_engine",
    "vllm.model_executor.models.qwen3",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.layers.quantization.online.base",
)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for those that wait for the commands
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which then closes the socket
    preload()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        served = serve(requests)
    if served is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(json.loads(served[0]), served[1])


def serve(requests: socket.socket, tied: bool = False) -> tuple[bytes, list[int]] | None:
    """In a process of its own for each request: the message, and all descriptors but the last one. In this process None, at the end.

    `tied`: such a process leads a group, and its parent, which waits for it, ends with this process.
    """
    server = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 4)
        if not message:
            return None
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if tied:
        from polaris.distributed.supervise import end_with_parent

        end_with_parent(server)
    *given, status = descriptors
    command = os.fork()
    if not command:
        os.close(status)
        return message, given
    if tied:
        os.setpgid(command, command)
    os.write(status, b"%d\n" % command)
    for descriptor in given:
        os.close(descriptor)
    _, ended = os.waitpid(command, 0)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def preload() -> None:
    """Import what takes seconds, as an engine does that is built in float32.

    No thread may have begun when the fork comes, but the one of pyarrow's allocator, which prepares itself for a fork.
    """
    sys.path[0] = str(Path(__file__).parents[1])
    from polaris.rollout.vllm_versions import prepare_process

    prepare_process("float32")
    for module in (*MODULES, *(OF_VLLM if importlib.util.find_spec("vllm") else ())):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")} - {"jemalloc_bg_thd"}
    assert len(threads) == 1, threads


def become(request: dict, outputs: list[int]) -> None:
    """Run a command (`-m MODULE ...` or `FILE ...`) in its folder and environment as `python` would."""
    for number, descriptor in enumerate(outputs[:2], start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for namespace in outputs[2:]:
        enter(namespace)
    if "FORK_ENGINES" in request["environment"]:
        sys.path.append(str(Path(__file__).parent))
        from forked_engines import hatch

        request = hatch(request)
    if journal := request["environment"].get("FORKED"):
        with open(journal, "a") as file:
            file.write(f"{os.getpid()}\n")
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv = [sys.executable, *request["command"]]
    first, *rest = request["command"]
    sys.path[0] = os.getcwd() if first == "-m" else os.path.dirname(first)
    sys.path[1:1] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in sys.path]
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        leave(end.code)
    leave(None)


def enter(namespace: int) -> None:
    """Enter a network namespace, which takes root."""
    if not os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")) and ctypes.CDLL(None).setns(namespace, 0):
        raise OSError("setns")
    os.close(namespace)


def leave(code: int | str | None) -> None:
    """End as `sys.exit(code)` does, but for the last collection of garbage, which takes seconds: it would copy every page."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(bool(code)) if isinstance(code, str) else code or 0)


if __name__ == "__main__":
    main()
