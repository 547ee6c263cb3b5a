"""Inputs and outputs of a rollout engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import numpy as np

from polaris.errors import Refused
from polaris.types import FinishReason, Prompt, Rollout

if TYPE_CHECKING:
    import torch


class EngineRefused(Refused):
    """The engine cannot be built with these settings on this machine."""


class GenerationInterrupted(Exception):
    """`should_stop` returned true: unfinished requests are aborted, and the engine can be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """One sample to draw: number `sample` of the prompt `prompt_id`, which come back on the rollout."""

    prompt_id: str
    sample: int
    prompt_tokens: tuple[int, ...]
    seed: int

    def answered(self, tokens: np.ndarray, logprobs: np.ndarray, finish_reason: FinishReason, version: int, temperature: float) -> Rollout:
        """The rollout of `tokens` [n] int32 and `logprobs` [n] float32, all of them drawn by the weights of `version`."""
        return Rollout(
            prompt_id=self.prompt_id,
            sample=self.sample,
            tokens=tokens,
            logprobs=logprobs,
            versions=np.full(len(tokens), version, np.int32),
            finish_reason=finish_reason,
            temperature=temperature,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling of all requests of a call: softmax(logits / temperature), cut at `top_k`/`top_p` only in evaluation."""

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
        """Bytes that the sleeping engine has freed but torch's allocator still counts as allocated on this device."""
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
        """Draw every request; rollouts come in the order of `requests`. `on_finished` is called with each one as soon as it ends.

        Raises `GenerationInterrupted` on a stop, after `on_finished` was called for every finished rollout.
        """
        ...

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """Log-probs [n - 1] float32 of tokens[1:] given their prefixes, at temperature 1."""
        ...

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """Cosines, then sines, at these positions: [n, rotated dimensions]; None without a single table."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace all weights (Hugging Face names, full tensors) and drop all caches of the old ones."""
        ...

    def sleep(self) -> None:
        """Give device memory back to the trainer until `wake`; caches are lost."""
        ...

    def wake(self) -> None:
        """Take device memory again. If `sleep` dropped the weights, load new ones before the next `generate`."""
        ...

    def close(self) -> None:
        """Shut the engine down; the trainer's process group stays."""
        ...


def request_seed(run_seed: int, stream: str, step: int, prompt_id: str, sample: int) -> int:
    """63-bit seed of sample `sample` of prompt `prompt_id` at step `step`; `stream` ("train", "eval") separates uses."""
    fields = (str(run_seed), stream, str(step), prompt_id, str(sample))
    digest = blake2b(digest_size=8)
    for field in fields:
        data = field.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") >> 1


def request_of(prompt: Prompt, sample: int, run_seed: int, stream: str, step: int) -> RolloutRequest:
    """The request for sample `sample` of a prompt; see `request_seed`."""
    seed = request_seed(run_seed, stream, step, prompt.id, sample)
    return RolloutRequest(prompt_id=prompt.id, sample=sample, prompt_tokens=prompt.tokens, seed=seed)


def spread_requests(prompts: Sequence[Prompt], count: int, run_seed: int, stream: str) -> tuple[RolloutRequest, ...]:
    """`count` requests for prompts spread evenly over all of them; a prompt comes again if there are fewer."""
    return tuple(request_of(prompts[i * len(prompts) // count], i, run_seed, stream, 0) for i in range(count))
