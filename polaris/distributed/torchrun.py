"""Makes torchrun end with the status of our ranks, and without output of its own.

By default torchrun prints thirty or more lines of its own traceback after every failure of a rank, even a refusal, and ends with
status 1. A rank cannot change that when it ends. But torchrun loads the entry points `torchrun.handlers` when it starts; they are
meant for rendezvous backends, and ours (see pyproject.toml) is one of them. It changes nothing for other programs. If a rank could
not print why it ended, as when it was killed, torchrun's list of exit codes stays.
"""

from __future__ import annotations

import logging
import signal
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


def _end(usual: Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    status = status_of(error)
    if status is not None:
        raise SystemExit(status)  # sets the exit status of the process, as raised in this hook
    usual(kind, error, trace)


def _is_news(record: logging.LogRecord) -> bool:
    """False for records that torchrun ends the other ranks, or that a rank has failed, which the rank has printed."""
    return not record.getMessage().startswith(("Sending process", "failed (exitcode"))


def _no_backend(parameters: Any) -> NoReturn:
    raise ValueError("polaris is not a rendezvous backend; leave --rdzv-backend out, or set it to c10d")
