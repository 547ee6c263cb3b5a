"""What a rollout engine is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import numpy as np

from polaris.errors import Refused
from polaris.types import Rollout

if TYPE_CHECKING:
    import torch


class EngineRefused(Refused):
    """The engine cannot be built with these settings on this machine."""


class GenerationInterrupted(Exception):
    """`should_stop` returned true: unfinished requests were aborted and the engine is clean again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """One sample to draw: number `sample` of the prompt `prompt_id`, which come back on the rollout."""

    prompt_id: str
    sample: int
    prompt_tokens: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How every request of a call is sampled: softmax(logits / temperature), cut at `top_k`/`top_p` only in evaluation."""

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of a running `generate` call on one engine, for the console."""

    finished: int
    total: int
    tokens: int


class Engine(Protocol):
    """A rollout engine that lives in the trainer's process."""

    @property
    def version(self) -> int:
        """Version of the weights that are being served."""
        ...

    @property
    def asleep_bytes(self) -> int:
        """Bytes that torch's allocator counts as allocated on this process's device though the sleeping engine has given them back."""
        ...

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_finished: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """Draw every request; the result has the order of `requests`, and `on_finished` hears of each rollout as soon as it ends.

        Raises `GenerationInterrupted`; `on_finished` has then heard of each rollout that had ended.
        """
        ...

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """Log-probs [n - 1] float32 of tokens[1:] given their prefixes, at temperature 1."""
        ...

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """Cosines, then sines, that the engine applies at these positions, [n, rotated dimensions]; None where it has no single table."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace all weights (Hugging Face names, full tensors) and drop every cache made with the old ones."""
        ...

    def sleep(self) -> None:
        """Give device memory back to the trainer until `wake`; what was cached is lost."""
        ...

    def wake(self) -> None:
        """Take device memory again; new weights must be loaded before the next `generate` if `sleep` dropped them."""
        ...

    def close(self) -> None:
        """End the engine; the trainer's process group stays."""
        ...


def request_seed(run_seed: int, stream: str, step: int, prompt_id: str, sample: int) -> int:
    """63-bit seed of sample `sample` of prompt `prompt_id` at step `step`; `stream` ("train", "eval") keeps uses apart."""
    fields = (str(run_seed), stream, str(step), prompt_id, str(sample))
    digest = blake2b(digest_size=8)
    for field in fields:
        data = field.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") >> 1
