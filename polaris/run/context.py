"""What the phases of a run need, made once at start."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from polaris.checkpoint.state import Kept
from polaris.data.ledger import Ledger
from polaris.data.sampler import Sampler
from polaris.learn.successes import Successes
from polaris.model.policy import Policy
from polaris.observe.console import Console
from polaris.sampling.context import EngineRooms
from polaris.sync.probe import Probe, Yardstick
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms(EngineRooms):
    """For phases that train; a stage has its own `config`, `prompts` and `sampler`."""

    console: Console
    prompts: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    sampler: Sampler
    policy: Policy
    optimizer: torch.optim.Optimizer
    ledger: Ledger
    """Pass rate of every prompt drawn so far."""
    successes: Successes
    """Correct rollouts that rescue later failures."""
    probe: Probe
    """The responses that the engine draws after each weight sync, as a proof of its weights."""
    yardstick: Yardstick
    """How far engine and trainer were apart on the base model."""
    stage: int = 0
    """The stage of training, counted from 0."""

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What a checkpoint holds besides policy, optimizer, generators and state."""
        return (self.ledger, self.successes)
