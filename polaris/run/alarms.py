"""The console hears what in the records should worry (`polaris.observe.alarms`)."""

from __future__ import annotations

from collections.abc import Iterable

from polaris.observe.alarms import Record, Watch
from polaris.observe.console import Console


class Alarms:
    """Says what is new in each record. `earlier` are those of the steps before a resume, of which it was said already."""

    def __init__(self, console: Console, earlier: Iterable[Record] = ()) -> None:
        self._console, self._watch = console, Watch()
        for record in earlier:
            self._watch.look(record)

    def look(self, record: Record) -> None:
        """Check one record of `metrics.jsonl`."""
        for said in self._watch.look(record):
            (self._console.warning if said.warning else self._console.note)(str(said))
