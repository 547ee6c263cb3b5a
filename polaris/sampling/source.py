"""Where a step's groups come from, and where its weights go: the seam between sampling and learning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from polaris.types import Group

if TYPE_CHECKING:
    import torch


class GroupSource(Protocol):
    """Draws and grades groups with the weights that were published last."""

    def next(self, step: int, temperature: float) -> list[Group]:
        """The groups of step `step`, sampled at `temperature`, the same on every rank.

        Raises `GenerationInterrupted` where a stop is requested.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Which prompts were drawn, for a checkpoint: the cursor of `polaris.data.sampler`."""
        ...

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> float:
        """Serve `weights` (Hugging Face names, full tensors; a collective on every rank) as `version`, and prove it.

        Returns the mean distance of engine and trainer on freshly drawn tokens, in nats, of the rank where it is largest.

        Raises:
            WeightSyncError: the engine's log-probs are not the trainer's.
        """
        ...
