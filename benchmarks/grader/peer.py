"""Math-Verify called plainly, `verify(parse(gold), parse(answer))`, in a process that is killed when it does not come back.

python benchmarks/grader/peer.py     # the process: JSON lines [gold, answer] in, true or false out
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from types import TracebackType


class Peer:
    """Math-Verify with a limit of `limit_s` seconds of ours above its own two of 5 s."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def equal(self, gold: str, answer: str) -> bool | None:
        """Its verdict; None where it hung or died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
        reply = self._line()
        if not reply:
            self._process.kill()
            self._process.wait()
            self._start()
        return json.loads(reply) if reply else None

    def _start(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._line(60.0)

    def _line(self, limit_s: float | None = None) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s or self._limit_s)
        return self._process.stdout.readline() if ready else b""


def plainly(gold: str, answer: str) -> bool:
    """Both in the form that its documentation asks for: the gold answer as LaTeX, the other as a box."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${gold}$"), parse(answer if "\\boxed" in answer else f"\\boxed{{{answer}}}")))


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    plainly("1", "1")
    print("ready", file=replies)
    for line in sys.stdin:
        print(json.dumps(plainly(*json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
