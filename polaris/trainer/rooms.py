"""Everything that one training step needs, made once at start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from polaris.config.schema import RunConfig
from polaris.data.prompt import Prompt
from polaris.data.sampler import Sampler
from polaris.distributed.mesh import World
from polaris.model.policy import Policy
from polaris.observe.console import Console
from polaris.reward.pool import GraderPool
from polaris.rollout.types import Engine
from polaris.trainer.signals import StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    config: RunConfig
    world: World
    tokenizer: PreTrainedTokenizerBase
    prompts: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    sampler: Sampler
    policy: Policy
    optimizer: torch.optim.Optimizer
    engine: Engine
    grader: GraderPool
    console: Console
    stop: StopRequest
    probe: tuple[int, ...]
    """Fixed tokens whose log-probs are compared after each weight sync."""
