"""Rollouts by the transformers model itself, for machines without vLLM."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.model.rope import Rope, rotary_table
from polaris.rollout.checkpoint import check_requests, complete, stop_tokens
from polaris.rollout.decoding import Decoding
from polaris.rollout.isolation import any_kernel
from polaris.rollout.slots import ATTENTION, KVSlots
from polaris.rollout.types import GenerationInterrupted, Progress, RolloutRequest, Sampling
from polaris.types import FinishReason, Rollout

PROGRESS_INTERVAL_S = 0.1


class TransformersEngine:
    """A replica of the model on this rank's device. A sample's tokens depend only on its seed, up to float noise of batching."""

    def __init__(
        self, model_path: str | Path, *, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope
    ) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        logging.disable_progress_bar()
        replica: Any = AutoModelForCausalLM.from_pretrained(
            model_path,
            config=AutoConfig.from_pretrained(model_path, **rope.overrides),
            dtype=getattr(torch, model.dtype),
            attn_implementation=ATTENTION,
        )
        self._model = replica.eval().requires_grad_(False).to(self._device)
        self._slots: KVSlots | None = None
        self._decoding: Decoding | None = None
        self._stops = stop_tokens(model_path)
        self._max_concurrent = rollout.max_concurrent
        self._max_model_len = max_model_len
        self._version = 0

    @property
    def version(self) -> int:
        return self._version

    @property
    def asleep_bytes(self) -> int:
        return 0  # `sleep` really frees its memory

    @any_kernel()
    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_finished: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """See `Engine.generate`. A response ends early, as "length", where prompt and response reach `max_model_len`.

        Raises:
            ValueError: a prompt does not fit; nothing has run.
            GenerationInterrupted: `should_stop` returned true.
        """
        first = self._submit(requests, sampling)
        rollouts: dict[int, Rollout] = {}
        reported = time.monotonic()
        try:
            while self.running:
                if should_stop():
                    raise GenerationInterrupted
                for index, rollout in self._ended():
                    rollouts[index] = rollout
                    if on_finished is not None:
                        on_finished(rollout)
                if time.monotonic() - reported >= PROGRESS_INTERVAL_S or not self.running:
                    reported = time.monotonic()
                    done = sum(len(rollout.tokens) for rollout in rollouts.values())
                    on_progress(Progress(finished=len(rollouts), total=len(requests), tokens=self.tokens + done))
        finally:
            self._decoding = None
        return [rollouts[first + index] for index in range(len(requests))]

    @property
    def running(self) -> int:
        return self._decoding.unfinished if self._decoding else 0

    @property
    def waiting(self) -> int:
        return self._decoding.waiting if self._decoding else 0

    @property
    def tokens(self) -> int:
        return self._decoding.tokens if self._decoding else 0

    @torch.inference_mode()
    def submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """See `Stepwise.submit`. All requests that run at a time are sampled in the same way."""
        self._submit(requests, sampling)

    @torch.inference_mode()
    def step(self) -> list[Rollout]:
        """See `Stepwise.step`."""
        return [rollout for _, rollout in self._ended()]

    @torch.inference_mode()
    def abort(self) -> list[Rollout]:
        """See `Stepwise.abort`."""
        decoding, self._decoding = self._decoding, None
        begun = decoding.abort() if decoding else []
        return self._rollouts(decoding, begun, cut=True) if decoding and begun else []

    def _submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> int:
        """Take requests; the index of the first of them."""
        model = self._ready()
        check_requests(requests, self._max_model_len, model.config.vocab_size)
        if self._slots is None:
            self._slots = KVSlots(model.config, self._max_concurrent, model.dtype, self._device)
        if self._decoding is None or not self.running:
            self._decoding = Decoding(model, self._slots, sampling, self._stops, self._max_model_len)
        assert self._decoding.sampling == sampling
        first = len(self._decoding.requests)
        self._decoding.add(requests)
        return first

    def _ended(self) -> list[tuple[int, Rollout]]:
        """One step of all sequences: the requests that have ended, by their index."""
        assert self._decoding is not None
        ended = self._decoding.step()
        return list(zip(ended, self._rollouts(self._decoding, ended), strict=True)) if ended else []

    def _rollouts(self, decoding: Decoding, indices: Sequence[int], *, cut: bool = False) -> list[Rollout]:
        rollouts: list[Rollout] = []
        for index, (tokens, logprobs, stopped) in zip(indices, decoding.results(indices), strict=True):
            why: FinishReason = "abort" if cut else "stop" if stopped else "length"
            rollouts.append(decoding.requests[index].answered(tokens, logprobs, why, self._version, decoding.sampling.temperature))
        return rollouts

    @torch.inference_mode()
    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.score`."""
        ids = torch.tensor([list(tokens)], device=self._device)
        logprobs = self._ready()(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        return logprobs.gather(-1, ids[0, 1:, None])[:, 0].cpu().numpy()

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """Cosines, then sines, at these positions: [len(positions), rotated dimensions]; None without a single table."""
        model = self._ready()
        return rotary_table(model, positions, model.dtype)

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`. Any float dtype.

        Raises:
            RuntimeError: names or shapes are not those of the model. The engine is closed, since it holds old and new weights.
        """
        parameters = dict(self._ready().named_parameters())
        try:
            for name, tensor in complete(weights, {name: parameter.shape for name, parameter in parameters.items()}):
                parameters[name].copy_(tensor)
        except BaseException:
            self.close()
            raise
        self._version = version

    def sleep(self) -> None:
        """Free the KV cache and, on CUDA, move the weights to host memory."""
        self._slots = None
        self._ready().to("cpu")

    def wake(self) -> None:
        self._ready().to(self._device)

    def close(self) -> None:
        self._model = self._slots = self._decoding = None

    def _ready(self) -> Any:
        if self._model is None:
            raise RuntimeError("the rollout engine is closed")
        return self._model
