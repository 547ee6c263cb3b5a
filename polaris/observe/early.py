"""What a long pass takes at most, by the first half minute of its drawing: long before its first batch of responses has ended."""

from __future__ import annotations

from polaris.observe.phrases import count, duration

FIRST_SECONDS = 30.0


class Early:
    """Of the `responses` of at most `longest` tokens that one engine draws. It speaks once, or never if something better is known."""

    def __init__(self, responses: int, longest: int, *, silent: bool = False) -> None:
        self._responses, self._longest = responses, longest
        self._ended, self._tokens = 0, 0
        self._begun: float | None = None
        self._silent = silent

    def begin(self) -> None:
        """The engine is about to draw, again from 0 tokens."""
        self._begun = None

    def silence(self) -> None:
        """Something better is known."""
        self._silent = True

    def ended(self, tokens: int) -> None:
        """A response of so many tokens has ended."""
        self._ended, self._tokens = self._ended + 1, self._tokens + tokens

    def at(self, tokens: int, now: float) -> str:
        """The estimate, once `FIRST_SECONDS` have passed since the first reading; else "".

        `tokens` are those drawn since `begin`, of unfinished responses too; `now` is a monotonic clock's reading in seconds. The responses
        that have ended by then are the shortest, so that their mean length tells how little time it could be, not how much it will be.
        """
        self._begun = now if self._begun is None else self._begun
        seconds = now - self._begun
        if self._silent or seconds < FIRST_SECONDS or not tokens:
            return ""
        self._silent = True
        speed = tokens / seconds
        most = (self._responses * self._longest - tokens) / speed
        least = (self._responses * self._tokens / self._ended - tokens) / speed if self._ended else 0.0
        short = f"; {duration(least)} if all were as short as the {self._ended:,} that have ended" if least > 0 else ""
        return f"{count(speed)} tokens/s, so at most {duration(max(0.0, most))} more, if every response is drawn to its limit{short}"
