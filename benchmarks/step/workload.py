"""The step that every contestant runs, and the two lines over which a benchmark drives one in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPTS = 32
SAMPLES = 8
MAX_RESPONSE_TOKENS = 192
LEARNING_RATE = 1e-6
"""Small, so that response lengths stay those of the base model while steps are timed."""

_HERE = Path(__file__).resolve().parent


class Contestant:
    """A trainer in a process of its own, with as many torch threads as there are cores; of a name that ends with a number, in so many
    ranks of one thread. `step` runs one complete training step."""

    def __init__(self, name: str) -> None:
        ranks = int(name[-1]) if name.startswith("polaris") and name[-1].isdigit() else 1
        environment = os.environ | {"OMP_NUM_THREADS": "1" if ranks > 1 else str(os.cpu_count())}
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        command = [sys.executable, *launcher, str(_HERE / f"run_{name.split('-')[0]}.py"), name]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, float]:
        """Facts of the step: at least `response_tokens`.

        Raises:
            RuntimeError: the contestant has ended; its own words are on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the contestant ended with status {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


def serve(step: Callable[[], dict[str, Any]], answers: Callable[[dict[str, Any]], None]) -> None:
    """A contestant's side: one step per line of stdin, its facts as one line of the real stdout (`reserve_stdout`)."""
    for _ in sys.stdin:
        answers(step())


def reserve_stdout() -> Callable[[dict[str, Any]], None]:
    """Keep the real stdout for answers; what libraries print goes to stderr."""
    real = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(facts: dict[str, Any]) -> None:
        real.write(json.dumps(facts) + "\n")
        real.flush()

    return answer
