"""SIGTERM and Ctrl-C as a request to stop at the next safe point; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
from types import FrameType


class StopRequest:
    """Installed at start; `requested` is polled inside rollouts and between phases. `number` is the signal's, 0 before it came."""

    def __init__(self) -> None:
        self.number = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def requested(self) -> bool:
        return self.number > 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
