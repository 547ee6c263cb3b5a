"""A grading process: answers JSON lines on stdin with JSON lines on stdout until stdin closes.

Started by `polaris.reward.pool` as `python -m polaris.reward.worker SECONDS`; in: {"answer", "ground_truth", "mode"};
out: `ready` once, then per answer `begun` and the verdict's fields.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from dataclasses import asdict

from polaris.reward.grade import compare

MEMORY_BYTES = 4 << 30


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    compare("x+1", "1+x")
    print("ready", file=replies)
    for line in sys.stdin:
        print("begun", file=replies)
        request = json.loads(line)
        truth = request["ground_truth"]
        # The parent kills sooner; the kernel's default action on SIGALRM ends even an orphan that hangs in C code.
        signal.alarm(int(sys.argv[1]))
        verdict = compare(request["answer"], tuple(truth) if isinstance(truth, list) else truth, request["mode"])
        signal.alarm(0)
        print(json.dumps(asdict(verdict)), file=replies)


if __name__ == "__main__":
    main()
