"""How torchrun ends after ranks of ours: with their status, and no more words than theirs.

Left to itself torchrun follows every failure of a rank, a refusal too, with thirty lines of its own traceback and more, and with
status 1. Nothing that a rank does at its end alters that. But torchrun loads the entry points `torchrun.handlers` when it starts, which
are meant for rendezvous backends, and ours (see pyproject.toml) is one of them. It leaves other programs alone. Where a rank could not
say why it ended, such as one that was killed, torchrun's list of exit codes is what one needs, and stays.
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
_PROGRAMS = ("polaris.train", "polaris.evaluate", "polaris.cli")
_EXPLAINED = (1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of `polaris.run.session`, each with a message or a traceback."""
_TOLD = 128 + signal.SIGTERM
"""Also what a rank answers to torchrun's own SIGTERM, after another one has ended; -SIGTERM before it listens."""


def handler() -> Callable[..., NoReturn]:
    """Entry point, called inside torchrun when it starts."""
    if is_ours(sys.argv):
        sys.excepthook = partial(_end, sys.excepthook)
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_is_news)
    return _no_backend


def is_ours(command: Sequence[str]) -> bool:
    """Whether torchrun starts `polaris.train` or another program of ours."""
    return any(Path(word).name.removesuffix(".py") in _PROGRAMS for word in command)


def status_of(error: BaseException) -> int | None:
    """The exit status that stands for torchrun's own failure; None if there is more to say than the ranks have said.

    It fails by `ChildFailedError`, or by `SignalException` after it has passed a signal on and waited for the ranks to save.
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
        raise SystemExit(status)  # raised in this hook, it decides on the status of the process
    usual(kind, error, trace)


def _is_news(record: logging.LogRecord) -> bool:
    """Not that torchrun ends the other ranks, nor that one of them has failed: that one has said so."""
    return not record.getMessage().startswith(("Sending process", "failed (exitcode"))


def _no_backend(parameters: Any) -> NoReturn:
    raise ValueError("polaris is no rendezvous backend; leave --rdzv-backend out, or set it to c10d")
