"""Makes torchrun end with the status of our ranks, and without output of its own.

By default torchrun prints thirty or more lines of its own traceback after every failure of a rank, even a refusal, and ends with
status 1. A rank cannot change that when it ends. But torchrun loads the entry points `torchrun.handlers` when it starts; they are
meant for rendezvous backends, and ours (see pyproject.toml) is one of them. It changes nothing for other programs. A rank that was killed
could not print why it ended: one line says it in its place. If it ended in another way without a word, torchrun's list of exit codes stays.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], None]
_PROGRAMS = ("polaris.train", "polaris.sft", "polaris.evaluate", "polaris.cli")
_EXPLAINED = (1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of `polaris.run.session`; ranks print a message or traceback with each."""
_TOLD = 128 + signal.SIGTERM
"""Also codes of ranks that torchrun ends by SIGTERM after another rank has ended; -SIGTERM before ours handle it."""


def handler() -> Callable[..., NoReturn]:
    """Entry point that torchrun calls when it starts."""
    if is_ours(sys.argv):
        sys.excepthook = partial(_end, sys.excepthook)
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_is_news)
    return _no_backend


def is_ours(command: Sequence[str]) -> bool:
    """Whether torchrun starts `polaris.train` or another program of ours."""
    return any(Path(word).name.removesuffix(".py") in _PROGRAMS for word in command)


def status_of(error: BaseException) -> int | None:
    """The exit status to use for torchrun's own failure; None if the ranks have not explained it all.

    torchrun raises `ChildFailedError`, or `SignalException` after it has forwarded a signal and waited for the ranks.
    """
    kind, facts = type(error).__name__, vars(error)
    if kind == "SignalException":
        return 128 + int(facts["sigval"])
    codes = [facts["failures"][rank].exitcode for rank in sorted(facts["failures"])] if kind == "ChildFailedError" else []
    if not set(codes) <= {*_EXPLAINED, -signal.SIGTERM}:
        return None
    said = [code for code in codes if code > 0]
    return next((code for code in said if code != _TOLD), _TOLD if said else None)


def killed(error: BaseException) -> str | None:
    """What to say of the rank that was killed first; None if none was, or others ended without a word in another way."""
    if type(error).__name__ != "ChildFailedError":
        return None
    failures = vars(error)["failures"].items()
    silent = [(failure.timestamp, rank, failure) for rank, failure in failures if failure.exitcode not in {*_EXPLAINED, -signal.SIGTERM}]
    if not silent or any(failure.exitcode >= 0 for _, _, failure in silent):
        return None
    _, rank, failure = min(silent, key=lambda one: one[:2])
    name = signal.Signals(-failure.exitcode).name
    hint = "; that may be the system, where a machine has run out of memory" if name == "SIGKILL" else ""
    return (
        f"rank {rank} (process {failure.pid}) was killed by {name}{hint}. What is finished is on disk, and the same command goes on from "
        f"there; torchrun --max-restarts=1 would do so by itself. It ran on {socket.gethostname()}"
    )


def _end(usual: Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    status = status_of(error)
    if status is None and (said := killed(error)):
        print(f"polaris: {said}", file=sys.stderr, flush=True)
        status = 1
    if status is not None:
        raise SystemExit(status)  # sets the exit status of the process, as raised in this hook
    usual(kind, error, trace)


def _is_news(record: logging.LogRecord) -> bool:
    """False for records that torchrun ends the other ranks, or that a rank has failed, which the rank has printed or `killed` says."""
    return not record.getMessage().startswith(("Sending process", "Unable to shutdown process", "failed (exitcode"))


def _no_backend(parameters: Any) -> NoReturn:
    raise ValueError("polaris is not a rendezvous backend; leave --rdzv-backend out, or set it to c10d")
