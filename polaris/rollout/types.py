"""Inputs and outputs of a rollout engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from polaris.errors import Refused, RunFailed
from polaris.types import FinishReason, Prompt, Rollout

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from polaris.config.model import ModelConfig
    from polaris.config.rollout import RolloutConfig
    from polaris.model.rope import Rope


class EngineRefused(Refused):
    """The engine cannot be built with these settings on this machine."""


class GenerationInterrupted(Exception):
    """`should_stop` returned true: unfinished requests are aborted, and the engine can be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """One sample to draw: number `sample` of the prompt `prompt_id`, which come back on the rollout. Of a `Stepwise` engine `max_tokens`
    may ask for fewer tokens than its `Sampling` does: the rest of a response that has begun."""

    prompt_id: str
    sample: int
    prompt_tokens: tuple[int, ...]
    seed: int
    max_tokens: int | None = None

    def limit(self, sampling: Sampling) -> int:
        """Most tokens of the response."""
        return sampling.max_tokens if self.max_tokens is None else min(self.max_tokens, sampling.max_tokens)

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
    """A rollout engine in the trainer's process: the whole contract. `python -m polaris.rollout.contract mine:Engine` tries it.

    Every rank has one on its own device (`rollout.tensor_parallel` ranks share one, and make the same calls in the same order). An engine
    of one's own is named in `rollout.engine`, and built as `EngineClass` says. It serves the checkpoint's weights as version 0 when it is
    made. All members are required, but two of them, marked optional, may be inherited from this class.
    """

    @property
    def version(self) -> int:
        """Version of the weights that are being served: 0 at first, then what `load_weights` was last given."""
        ...

    @property
    def asleep_bytes(self) -> int:
        """Optional. Bytes that the sleeping engine has freed but torch's allocator still counts as allocated on this device; else 0."""
        return 0

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_finished: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """Draw every request; rollouts come in the order of `requests`, of which there may be none.

        A rollout (`RolloutRequest.answered` makes one) has the n tokens [n] int32 of the response, without the prompt. It ends with the
        first end-of-sequence token of the checkpoint (`polaris.rollout.checkpoint.stop_tokens`), as "stop", or after
        `sampling.max_tokens` tokens, or where prompt and response reach `max_model_len`, as "length". Its log-probs [n] float32, in nats,
        are those of softmax(logits / temperature), cut to `top_k` and `top_p` where they ask for it: the distribution that was sampled
        from. Its tokens depend on the weights, the prompt, `sampling` and `request.seed` alone, and not on the other requests.

        `on_finished` is called once with each rollout, as soon as it ends; the rollouts that are returned are equal to these.
        `on_progress` is called now and then, and once at the end of a call that had requests. `should_stop` is asked often: a step of
        all sequences may pass in between, a whole response may not. Global random generators are left alone.

        Raises:
            ValueError: a prompt is empty, leaves no position for a response, or has a token outside the vocabulary; nothing has run
                (`polaris.rollout.checkpoint.check_requests`).
            GenerationInterrupted: `should_stop` was true, and `on_finished` was called for every finished rollout.
        """
        ...

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """Log-probs [n - 1] float32 in nats of tokens[1:] given their prefixes, at temperature 1; n < `max_model_len`."""
        ...

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """Optional. Cosines, then sines, at these positions: [len(positions), rotated dimensions]; else None.

        It is compared with the configuration's rotary embedding. Without it, log-probs at the last positions are compared instead.
        """
        return None

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace all weights and drop all caches of the old ones; from then on `version` is served.

        `weights` are the names of transformers' `named_parameters()` and full tensors of any float dtype, gathered one at a time, in any
        order; a tied head is not among them. It must be read to its end, on every rank. No request is running.

        Raises:
            RuntimeError: a name is missing, unknown or repeated, or a shape is wrong (`polaris.rollout.checkpoint.complete`). An engine
                that holds a part of the new weights is closed, and serves none.
        """
        ...

    def sleep(self) -> None:
        """Give device memory back to the trainer until `wake`; caches are lost, and weights may be. A second call does nothing."""
        ...

    def wake(self) -> None:
        """Take device memory again; without a `sleep` before it does nothing. `load_weights` always follows before the next `generate`."""
        ...

    def close(self) -> None:
        """Shut the engine down; the trainer's process group stays. A second call does nothing."""
        ...


class Stepwise(Protocol):
    """What an engine has besides `Engine` if it takes requests while others run: then it takes them from the queue over all engines, and
    can be cut off. An engine without it is given its share of a draw at once, and draws all of it.

    Callers leave the process as it was (`polaris.rollout.isolation`). Ranks that share an engine make the same calls.
    """

    @property
    def running(self) -> int:
        """Unfinished requests."""
        ...

    @property
    def waiting(self) -> int:
        """Those of them that have no room yet."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that the unfinished requests have drawn so far."""
        ...

    def submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """Take further requests. Raises `ValueError` as `Engine.generate`; then none of them is taken."""
        ...

    def step(self) -> list[Rollout]:
        """Draw a token of every request that runs; the rollouts that have ended. At least one request is unfinished."""
        ...

    def abort(self) -> list[Rollout]:
        """End all requests: what each of them has drawn so far, as "abort", in the order they were submitted; none of one without a
        token."""
        ...


class InFlight(Stepwise, Protocol):
    """What a `Stepwise` engine has besides if it can have ranks of its own (`rollout.placement = "separate"`). Requests of different
    `Sampling`s run together."""

    def submit_first(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """As `submit`, and before all requests that wait."""
        ...

    def exchange_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """As `Engine.load_weights`, between two steps, while requests run: they go on behind the tokens that they have, which are read
        again with the new weights, and each of their tokens has the version of the weights that drew it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What an engine outside the job must agree with: the `shapes` of all parameters (`polaris.rollout.checkpoint.expected_weights`), and
    the fields of its `polaris.model.rope.Rope`."""

    shapes: dict[str, list[int]]
    rope: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgePlace:
    """Where an engine outside the job joins the bridge of weights (`polaris.sync.bridge`): the job's store at `host` and `port`, with the
    `prefix` of the bridge's keys, and the `rank` of the engine's first worker among the `size` members. `timeout_s` bounds the wait for all
    of them, and for each tensor."""

    host: str
    port: int
    prefix: str
    rank: int
    size: int
    timeout_s: float


BRIDGE_BROKE = "the bridge broke"
"""What a part of an engine outside the job says when others are gone, or have not come."""


class TransferBroken(RunFailed):
    """Weights did not come, since the bridge broke; the engine draws nothing until others come."""


@runtime_checkable
class Outside(Protocol):
    """What an `InFlight` engine has in the place of `exchange_weights` whose model is outside of this process: it takes weights itself."""

    @property
    def workers(self) -> int:
        """Members of a bridge that it takes."""
        ...

    def take_weights(self, place: BridgePlace, version: int) -> None:
        """As `InFlight.exchange_weights`, with the weights that come over the bridge at `place`. Raises `TransferBroken`."""
        ...


@runtime_checkable
class HoldsAdapters(Protocol):
    """What an `Engine` has besides if model.lora.sync = "adapter" is for it: `load_weights` then gives it adapters alone, by the names of a
    peft folder, and it adds them to the output of the model's layers."""

    def held_adapters(self) -> Mapping[str, torch.Tensor]:
        """Copies of the adapters that the next token is drawn with, read from where they are computed with, in float32; none at first."""
        ...


@runtime_checkable
class Several(Protocol):
    """An `Engine` that stands for several ones on ranks of their own; `generate` asks all of them, and gives what the first one drew."""

    def draw_on_each(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Rollout]]:
        """What each engine draws for all the requests, on every rank that trains: they must be few."""
        ...

    def dismiss(self, found: Mapping[int, str], error: RunFailed) -> None:
        """Start the engines anew that have drawn the lists at these places of `draw_on_each`, for these reasons; or raise the `error`, if
        that has not helped."""
        ...

    def approve(self) -> None:
        """What `draw_on_each` has drawn last is as the weights draw."""
        ...


OPTIONAL = ("asleep_bytes", "rotary_table")
REQUIRED = tuple(name for name in vars(Engine) if not name.startswith("_") and name not in OPTIONAL)
"""Members of `Engine` that a class must have of its own."""
STEPWISE = tuple(name for name in vars(Stepwise) if not name.startswith("_"))
IN_FLIGHT = tuple(name for name in vars(InFlight) if not name.startswith("_"))


class EngineClass(Protocol):
    """How an engine is made, on its rank's device; `max_model_len` are the tokens of the longest sequence, prompt and response.

    `model.dtype` is the dtype to compute in, and `rope.overrides` are entries of config.json to read the checkpoint with. Of `rollout`,
    `max_concurrent` and the memory settings are for engines. `seed` is for what the seeds of requests do not decide.
    """

    def __call__(
        self, model_path: str | Path, *, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope
    ) -> Engine: ...


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
