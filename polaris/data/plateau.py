"""When a run learns no more from what it draws: the share of informative groups has stopped rising."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "plateau.json"


class Plateau:
    """Reached where the mean share of informative groups over the last `window` steps is not above that over the `window` steps before.

    Counting begins anew once it is reached. Training accuracy would not do: with target-difficulty sampling it follows the target.
    A `window` of 0 means never.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._shares: list[float] = []

    def reached(self, share: float) -> bool:
        """Count the share of one more step."""
        if not self._window:
            return False
        self._shares = [*self._shares, share][-2 * self._window :]
        before, last = self._shares[: self._window], self._shares[self._window :]
        if len(last) < self._window or sum(last) > sum(before):
            return False
        self._shares = []
        return True

    def save(self, folder: Path) -> None:
        """Write `plateau.json`."""
        (folder / FILE).write_text(json.dumps(self._shares))

    def load(self, folder: Path) -> None:
        """Replace what is counted by what `save` wrote; a checkpoint of an older version has nothing."""
        self._shares = json.loads((folder / FILE).read_text()) if (folder / FILE).is_file() else []
