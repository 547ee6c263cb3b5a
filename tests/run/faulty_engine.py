"""vLLM with faults, each of which comes once in a run: those in FAULTS, where a file below FAULTS_SEEN remembers them."""

import os
import signal
from pathlib import Path

from polaris.rollout.vllm_engine import VLLMEngine


def comes(fault):
    """Whether this process is the first one to meet the fault."""
    if fault not in os.environ["FAULTS"].split():
        return False
    try:
        (Path(os.environ["FAULTS_SEEN"]) / fault).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


class Faulty(VLLMEngine):
    """A process is killed in the middle of its responses, between two tensors of new weights, and while it has nothing to do; one stops
    without ending; one takes weights and does not load them."""

    steps = 0

    def step(self):
        self.steps += 1
        if self.version == 1 and self.tokens > 20 and comes("generation"):
            die()
        if self.version == 1 and self.tokens > 20 and comes("hang"):
            die(signal.SIGSTOP)
        return super().step()

    @property
    def running(self):
        number = super().running
        if not number and self.version == 2 and self.steps > 3 and comes("idle"):
            die()
        return number

    def exchange_weights(self, weights, version):
        def counted():
            for number, pair in enumerate(weights):
                if version == 2 and number == 3 and comes("transfer"):
                    die()
                yield pair

        if version == 2 and comes("stale"):
            for _ in weights:
                pass
            self._version = version
            return
        super().exchange_weights(counted(), version)
