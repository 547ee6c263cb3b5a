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
from polaris.types import Rollout

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
        model = self._ready()
        check_requests(requests, self._max_model_len, model.config.vocab_size)
        if self._slots is None:
            self._slots = KVSlots(model.config, self._max_concurrent, model.dtype, self._device)
        if not requests:
            return []
        decoding = Decoding(model, self._slots, requests, sampling, self._stops, self._max_model_len)
        reported = time.monotonic()
        while not decoding.done:
            if should_stop():
                raise GenerationInterrupted
            ended = decoding.step()
            if on_finished is not None and ended:
                for index, result in zip(ended, decoding.results(ended), strict=True):
                    on_finished(self._rollout(requests[index], result, sampling))
            if time.monotonic() - reported >= PROGRESS_INTERVAL_S or decoding.done:
                reported = time.monotonic()
                on_progress(Progress(finished=decoding.finished, total=len(requests), tokens=decoding.tokens))
        results = decoding.results(range(len(requests)))
        return [self._rollout(request, result, sampling) for request, result in zip(requests, results, strict=True)]

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
        self._model = self._slots = None

    def _rollout(self, request: RolloutRequest, result: tuple[np.ndarray, np.ndarray, bool], sampling: Sampling) -> Rollout:
        tokens, logprobs, stopped = result
        return request.answered(tokens, logprobs, "stop" if stopped else "length", self._version, sampling.temperature)

    def _ready(self) -> Any:
        if self._model is None:
            raise RuntimeError("the rollout engine is closed")
        return self._model
