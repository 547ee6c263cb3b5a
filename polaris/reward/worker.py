"""A grading process: answers JSON lines on stdin with JSON lines on stdout until stdin closes.

Started by `polaris.reward.process` as `python -m polaris.reward.worker SECONDS`; in: {"answer", "ground_truth", "mode"};
out: `ready` once, then per answer `begun` and the verdict's fields. Address space is limited for good; seconds of CPU and of
the clock per answer.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from polaris.reward.grade import compare
from polaris.types import Verdict

MEMORY_BYTES = 1 << 30


def main() -> None:
    serve(_prepare, int(sys.argv[1]), MEMORY_BYTES)


def serve(prepare: Callable[[], Callable[[Any], Any]], seconds: int, memory: int) -> None:
    """Answer JSON lines with what the function that `prepare` makes returns. What is printed meanwhile goes to stderr."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reply, process = prepare(), os.getpid()
    print("ready", file=replies)
    for line in requests:
        print("begun", file=replies)
        request = json.loads(line)
        _limit(seconds)
        answer = reply(request)
        if os.getpid() != process:  # a user's reward has forked, and a second reply would be taken for the next one
            os._exit(0)
        signal.alarm(0)
        print(json.dumps(answer), file=replies)


def row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON."""
    return {"kind": verdict.kind, "reason": verdict.reason, "answer": verdict.answer, "reward": verdict.reward}


def _prepare() -> Callable[[Any], Any]:
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)
    compare("x+1", "1+x")
    return _verdict


def _verdict(request: Mapping[str, Any]) -> dict[str, Any]:
    truth = request["ground_truth"]
    return row(compare(request["answer"], tuple(truth) if isinstance(truth, list) else truth, request["mode"]))


def _limit(seconds: int) -> None:
    """The parent kills sooner; the default action on these signals ends even an orphan that hangs in C code."""
    signal.alarm(seconds)
    # A hard limit set by the user's shell stays, since it cannot be raised.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
