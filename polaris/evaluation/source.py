"""Where samples come from: an engine in this process, or a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from polaris.evaluation.samples import Key, Sample
from polaris.reward.thinking import Thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A sample to draw."""

    key: Key
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Called by a source while it draws: `on_sample` with each finished sample, `on_progress` now and then with the numbers of finished
    samples and of their tokens, `on_trouble` with a message that needs attention."""

    on_sample: Callable[[Sample], None]
    on_progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]
    on_trouble: Callable[[str], None]
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext
    """Wraps slow work before drawing; see `StopRequest.at_once`."""


class Source(Protocol):
    """Draws samples of the problems given to its constructor."""

    def identity(self) -> dict[str, Any]:
        """Facts that decide its samples, besides the settings."""
        ...

    def thinking(self) -> Thinking | None:
        """Whether its chat template requires `</think>`; None if the template does not say or is not known."""
        ...

    def describe(self) -> dict[str, str]:
        """Lines about the source, by name, to show before it draws."""
        ...

    def draw(self, rope_factor: float, wanted: Sequence[Wanted], hooks: Hooks) -> None:
        """Draw all of `wanted`, as many at a time as fit. Raises `GenerationInterrupted` on a stop request."""
        ...
