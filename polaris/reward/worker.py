"""A grading process: answers JSON lines on stdin with JSON lines on stdout until stdin closes.

Started by `polaris.reward.pool` as `python -m polaris.reward.worker SECONDS`; in: {"answer", "ground_truth", "mode"};
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
from dataclasses import asdict

from polaris.reward.grade import compare

MEMORY_BYTES = 1 << 30


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    compare("x+1", "1+x")
    print("ready", file=replies)
    for line in sys.stdin:
        print("begun", file=replies)
        request = json.loads(line)
        truth = request["ground_truth"]
        _limit(int(sys.argv[1]))
        verdict = compare(request["answer"], tuple(truth) if isinstance(truth, list) else truth, request["mode"])
        signal.alarm(0)
        print(json.dumps(asdict(verdict)), file=replies)


def _limit(seconds: int) -> None:
    """The parent kills sooner; the default action on these signals ends even an orphan that hangs in C code."""
    signal.alarm(seconds)
    # A hard limit set by the user's shell stays, since it cannot be raised.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
