"""A hook that kills its process, the first trainer's, after every checkpoint but the first, and writes down when."""

import os
import signal
import time
from pathlib import Path

from polaris.observe.hook import Hook


class Dies(Hook):
    def on_checkpoint(self, step, folder):
        if step >= 2:
            with open(Path(os.environ["FAULTS_SEEN"]) / "deaths", "a") as file:
                file.write(f"{time.time()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
