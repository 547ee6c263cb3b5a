"""Shares of responses that should stay small. The console reports the first of each, and warns when one rises above a half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.observe.console import Console
from polaris.reward import no_answer

MOST = 0.5
"""Share of responses without an answer, cut off, or of lost marks, above which little is learned."""
_LONGER = "; allow longer ones (rollout.max_response_tokens, or the stage's), or look at rollouts/ for endless repetition"
_LOST = "reward/process_lost"
_WATCHED = (("", "reward/no_answer", "response/clip_ratio"), ("held out: ", "eval/no_answer", "eval/response/clip_ratio"))


class Alarms:
    """Warns about each share once; again only after it has been low."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: set[str] = set()
        self._high: set[str] = set()

    def look(self, record: Mapping[str, Any]) -> None:
        """Check one record of `metrics.jsonl`."""
        for title, missing, cut in _WATCHED:
            if missing in record:
                why = ", ".join(f"{record[key]:.1%} {words}" for key, words in no_answer.keys(missing) if record.get(key))
                self._watch(missing, record, f"{title}{record[missing]:.1%} of the responses have no answer ({why})", "")
                limit = record[cut.replace("clip_ratio", "limit")]
                said = f"{title}{record[cut]:.1%} of the responses are cut off at {limit} tokens"
                self._watch(cut, record, said, _LONGER)
        if _LOST in record:
            said = f"at {record[_LOST]:.1%} of the responses the process that finds marked results was killed: they earn nothing by them"
            self._watch(_LOST, record, said, "; mend reward.process.marker, or raise reward.timeout_s")

    def _watch(self, key: str, record: Mapping[str, Any], said: str, remedy: str) -> None:
        share, where = record[key], f"step {record['step']}: "
        if share > MOST and key not in self._high:
            self._console.warning(f"{where}{said}{remedy}")
        elif share and key not in self._seen:
            self._console.note(f"{where}{said}")
        self._seen.add(key)
        self._high = self._high | {key} if share > MOST else self._high - {key}
