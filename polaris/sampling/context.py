"""What sampling and grading need, made once at start (`polaris.run.setup`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from polaris.config.schema import RunConfig
from polaris.distributed.mesh import World
from polaris.reward.rewards import Rewards
from polaris.rollout.types import Engine
from polaris.stop import StopRequest
from polaris.types import Prompt, Rollout


class Reporter(Protocol):
    """Shows the progress of phases; `polaris.observe.console.Console` is one."""

    def phase(self, name: str, *, in_step: bool = True) -> AbstractContextManager[None]: ...

    def progress(self, finished: int, total: int, tokens: int) -> None: ...

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the policy has just written, up to its end-of-sequence token: turn `number` of a response, counted from 0.

    `text` is this turn's, `response` all since the prompt, with what the policy read between its turns; both without special tokens.
    `rollout` holds the tokens of `response` (its `mask` says who wrote them) and `sample`, the response's number in its group.
    """

    number: int
    text: str
    response: str
    prompt: Prompt
    rollout: Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingContext:
    """This rank's engine and grader, with the configuration. `config.reward.require_thinking` is decided: never "auto"."""

    config: RunConfig
    world: World
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    grader: Rewards
    console: Reporter
    stop: StopRequest
    draws: Iterator[int] = field(default_factory=count)
    """Numbers the draws, on all ranks in the same way: each has keys of its own in the store that they share."""
    peers: dist.ProcessGroup | None = None
    """The ranks that share this one's engine; None if it has one of its own."""
    episode: Callable[[Turn], str | None] | None = None
    """`rollout.episode`: what is appended after a turn, for the policy to read before its next one; None ends the response."""

    @property
    def engines(self) -> int:
        """Engines of the job, on whichever ranks."""
        return self.world.engines or self.world.size // self.config.rollout.tensor_parallel
