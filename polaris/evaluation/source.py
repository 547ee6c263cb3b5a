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
    """What a source tells while it draws: each finished sample at once; now and then how many are finished, and their tokens; and what
    somebody should look after."""

    on_sample: Callable[[Sample], None]
    on_progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]
    on_trouble: Callable[[str], None]
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around what takes time before anything is drawn; see `StopRequest.at_once`."""


class Source(Protocol):
    """Draws samples of the problems that it was made for."""

    def identity(self) -> dict[str, Any]:
        """What decides its samples, besides the settings."""
        ...

    def thinking(self) -> Thinking | None:
        """Whether its chat template has an answer need `</think>`; None where it leaves that to the model, or is not known."""
        ...

    def describe(self) -> dict[str, str]:
        """What it is, for people; and whatever they should know before it draws."""
        ...

    def draw(self, rope_factor: float, wanted: Sequence[Wanted], hooks: Hooks) -> None:
        """Draw all of `wanted`, as many at a time as fit. Raises `GenerationInterrupted`."""
        ...
