"""Rollouts by vLLM's V1 engine inside the trainer's process. Only files whose names begin with `vllm`, and
`polaris.sync.vllm_weights`, import vLLM."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from vllm import LLMEngine, SamplingParams
from vllm.distributed.parallel_state import get_tp_group
from vllm.inputs import tokens_input
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import FinishReason as Ended

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused, in_one_line
from polaris.model.rope import Rope
from polaris.rollout.checkpoint import check_requests, expected_weights, stop_tokens
from polaris.rollout.isolation import any_kernel, preserved_process, preserved_randomness
from polaris.rollout.types import EngineRefused, GenerationInterrupted, Progress, RolloutRequest, Sampling
from polaris.rollout.vllm_adapter import ServedAdapter
from polaris.rollout.vllm_model import replace_weights, rotary_table_of
from polaris.rollout.vllm_setup import UNFIT, check_arguments, engine_arguments, patch_vllm, unfit
from polaris.types import FinishReason, Rollout

PROGRESS_INTERVAL_S = 0.1


class VLLMEngine:
    """One engine per tensor-parallel group. If `rollout.tensor_parallel` > 1, its ranks make the same calls with the same arguments.

    Tensor parallelism uses the trainer's default process group (torchrun), which must exist first.
    """

    def __init__(
        self, model_path: str | Path, *, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope
    ) -> None:
        if rollout.tensor_parallel != 1 and not dist.is_initialized():
            raise Refused(f"rollout.tensor_parallel = {rollout.tensor_parallel} needs a process group; start with torchrun")
        patch_vllm()
        self._on_gpu = torch.cuda.is_available()
        self._stop_tokens = list(stop_tokens(model_path))
        self._shapes, self._names = expected_weights(model_path)
        self._adapter = ServedAdapter(model_path, model.lora) if model.lora.served_apart else None
        self._max_model_len = max_model_len
        self._tensor_parallel = rollout.tensor_parallel
        self._version = 0
        self._pending: dict[str, tuple[RolloutRequest, Sampling]] = {}
        self._older: dict[str, list[tuple[int, int]]] = {}
        """Of pending requests that have outlived weights: each older version, and the tokens there were when it ended."""
        self._number = 0
        self._state: Literal["ready", "asleep", "empty"] = "ready"
        with preserved_process(), any_kernel(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = engine_arguments(str(model_path), model, rollout, max_model_len, seed, rope)
            check_arguments(arguments)
            try:
                self._llm: LLMEngine | None = LLMEngine.from_engine_args(arguments)
            except ValueError as error:  # pydantic's errors are long ValueErrors
                remedy = "change rollout.kv_cache_mib, rollout.gpu_memory_fraction, rollout.tensor_parallel, rollout.max_concurrent "
                remedy += "or the response length"
                raise EngineRefused(f"vLLM refused its settings; {remedy}. It says: {in_one_line(error, 2000)}") from error
            except UNFIT as error:
                raise unfit(arguments.model, error) from error
        self._vocab_size = self._llm.model_config.get_vocab_size()

    @property
    def version(self) -> int:
        return self._version

    @property
    def asleep_bytes(self) -> int:
        return _pool_bytes() if self._on_gpu and self._state == "asleep" else 0

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
            GenerationInterrupted: `should_stop` returned true on some rank of the tensor-parallel group.
            RuntimeError: vLLM failed; the engine is closed.
        """
        assert not self._pending, "requests of `submit` are running"
        names = self._submit(requests, sampling)
        rollouts: dict[str, Rollout] = {}
        reported = time.monotonic()
        with preserved_randomness(), any_kernel():
            try:
                while self._pending:
                    if self._any_rank(should_stop()):
                        raise GenerationInterrupted
                    for name, rollout in self._ended():
                        rollouts[name] = rollout
                        if on_finished is not None:
                            on_finished(rollout)
                    if time.monotonic() - reported >= PROGRESS_INTERVAL_S or not self._pending:
                        reported = time.monotonic()
                        done = sum(len(rollout.tokens) for rollout in rollouts.values())
                        on_progress(Progress(finished=len(rollouts), total=len(names), tokens=self.tokens + done))
            finally:
                self._drop()
        return [rollouts[name] for name in names]

    @property
    def running(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def tokens(self) -> int:
        return sum(request.num_output_tokens for request in self._scheduler.running)

    def submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """See `Stepwise.submit`."""
        self._submit(requests, sampling)

    def submit_first(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """See `InFlight.submit_first`."""
        waiting = self._scheduler.waiting
        before = len(waiting)
        self._submit(requests, sampling)
        for request in list(waiting)[: before - 1 : -1]:  # they were appended
            waiting.remove_request(request)
            waiting.prepend_request(request)

    def step(self) -> list[Rollout]:
        """See `Stepwise.step`. Raises `RuntimeError` where vLLM failed; the engine is closed."""
        return [rollout for _, rollout in self._ended()]

    def abort(self) -> list[Rollout]:
        """See `Stepwise.abort`."""
        self._ready()
        begun: list[Rollout] = []
        for name in self._pending:
            state = self._state_of(name)
            if state.detokenizer.output_token_ids:
                begun.append(self._rollout(name, state.make_request_output([], None, Ended.ABORT, None)))
        self._drop()
        return begun

    def _state_of(self, name: str) -> Any:
        """vLLM's own of a pending request."""
        states: Any = self._ready().output_processor
        (state,) = (states.request_states[internal] for internal in states.external_req_ids[name])
        return state

    def _submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[str]:
        """Take requests; their names, by which `_ended` gives their rollouts."""
        llm = self._ready()
        check_requests(requests, self._max_model_len, self._vocab_size)
        names = [str(self._number + index) for index in range(len(requests))]
        self._number += len(requests)
        for name, request in zip(names, requests, strict=True):
            llm.add_request(
                name, tokens_input(list(request.prompt_tokens)), self._parameters(request, sampling), lora_request=self._lora_request
            )
            self._pending[name] = (request, sampling)
        return names

    def _ended(self) -> list[tuple[str, Rollout]]:
        """One step of all sequences: the requests that have ended."""
        ended: list[tuple[str, Rollout]] = []
        for output in self._step(self._ready()):
            ended.append((output.request_id, self._rollout(output.request_id, output)))
            del self._pending[output.request_id]
        return ended

    def _drop(self) -> None:
        """Abort what is pending."""
        if self._pending and self._llm is not None:
            self._llm.abort_request(list(self._pending))
        self._pending.clear()
        self._older.clear()

    @property
    def _scheduler(self) -> Any:
        client: Any = self._ready().engine_core
        return client.engine_core.scheduler

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.score`; `tokens` must leave one position free, for a token that vLLM samples and we drop."""
        llm = self._ready()
        check_requests([RolloutRequest(prompt_id="", sample=0, prompt_tokens=tuple(tokens), seed=0)], self._max_model_len, self._vocab_size)
        parameters = SamplingParams(
            temperature=1.0,
            max_tokens=1,
            seed=0,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        llm.add_request("score", tokens_input(list(tokens)), parameters, lora_request=self._lora_request)
        with preserved_randomness(), any_kernel():
            while not (outputs := self._step(llm)):
                pass
        return np.asarray(outputs[0].prompt_logprobs.logprobs, np.float32)

    @property
    def _lora_request(self) -> Any:
        return self._adapter.request if self._adapter else None

    def held_adapters(self) -> dict[str, torch.Tensor]:
        """See `HoldsAdapters.held_adapters`."""
        return self._adapter.held(self._ready().model_executor.driver_worker.worker.model_runner) if self._adapter else {}

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """See `Engine.rotary_table`."""
        runner = self._ready().model_executor.driver_worker.worker.model_runner
        return rotary_table_of(runner.model, positions, runner.dtype)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`; adapters alone where it holds them (`HoldsAdapters`). Any float dtype; vLLM casts to its own.

        Raises:
            RuntimeError: names or shapes are not those of the model, or a request is running. The engine is closed, since vLLM
                cannot undo a part of an update.
        """
        self._replace(weights, version, in_flight=False)

    def exchange_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `InFlight.exchange_weights`; raises as `load_weights`."""
        for name in self._pending:
            self._older.setdefault(name, []).append((self._version, len(self._state_of(name).detokenizer.output_token_ids)))
        self._replace(weights, version, in_flight=bool(self._pending))

    def _replace(self, weights: Iterable[tuple[str, torch.Tensor]], version: int, *, in_flight: bool) -> None:
        """Load weights, and drop all KV cache; requests that are `in_flight` are prefilled again."""
        if self._llm is None or self._state == "asleep":
            raise RuntimeError("the rollout engine is closed or asleep; wake it before loading new weights")
        try:
            if self._adapter is not None:
                self._adapter.replace(self._llm, weights)
            else:
                worker = self._llm.model_executor.driver_worker.worker
                replace_weights(
                    worker.model_runner.model,
                    lambda named: worker.reload_weights(weights_iterator=named),
                    weights,
                    self._shapes,
                    self._names,
                )
            if self._state == "empty":
                self._take(self._llm, "kv_cache")
            if not self._llm.reset_prefix_cache(reset_running_requests=in_flight):
                raise RuntimeError("vLLM did not drop the KV cache of the old weights, since requests are running")
        except BaseException:
            self.close()
            raise
        self._state = "ready"
        self._version = version

    def sleep(self) -> None:
        """Drop weights and KV cache (vLLM's level 2). Beside adapters, which alone come anew, weights go to host memory (level 1). On CPU
        vLLM keeps the memory, but they cannot be used either."""
        if self._state != "asleep":
            llm = self._ready()
            if self._on_gpu:
                torch.cuda.synchronize()  # an interrupted step may still use the memory
            llm.sleep(level=1 if self._adapter else 2)
            self._state = "asleep"

    def wake(self) -> None:
        """Take memory for the weights only. `load_weights` takes memory for the KV cache later, which lowers the peak."""
        if self._llm is not None and self._state == "asleep":
            self._take(self._llm, "weights")
            self._state = "empty"

    def close(self) -> None:
        """See `Engine.close`. May be called twice.

        On CUDA an engine without its memory stays until the process ends: something has failed, and unmapped memory cannot be freed.
        """
        llm, self._llm = self._llm, None
        if llm is None or (self._on_gpu and self._state != "ready"):
            return
        # vLLM's own order would keep the compiled model alive, and the memory pool would refuse the next engine of this process.
        if (unpin := getattr(llm, "_finalizer", None)) is not None:
            unpin()
        llm.engine_core.shutdown()
        del llm
        gc.collect()
        if self._on_gpu:
            type(current_platform)._global_graph_pool = None  # a pool whose graphs are gone cannot be used again
            torch.cuda.empty_cache()

    def _take(self, llm: LLMEngine, what: str) -> None:
        if self._on_gpu:
            torch.cuda.empty_cache()  # else torch keeps memory that the trainer has freed, and vLLM cannot map it
        llm.wake_up([what])

    def _ready(self) -> LLMEngine:
        if self._llm is None or self._state != "ready":
            raise RuntimeError("the rollout engine is closed, asleep or without weights; wake it and load weights first")
        return self._llm

    def _step(self, llm: LLMEngine) -> list[Any]:
        try:
            return llm.step()
        except Exception as error:
            self.close()
            raise RuntimeError(f"vLLM failed while generating and was closed: {error}") from error

    def _any_rank(self, stop: bool) -> bool:
        """Whether any rank wants to stop: all ranks of a tensor-parallel group must step together, or they hang."""
        if self._tensor_parallel == 1:
            return stop
        votes = torch.tensor([stop], dtype=torch.int32)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=get_tp_group().cpu_group)
        return bool(votes.item())

    def _parameters(self, request: RolloutRequest, sampling: Sampling) -> SamplingParams:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=request.limit(sampling),
            seed=request.seed,
            stop_token_ids=self._stop_tokens,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    def _rollout(self, name: str, output: Any) -> Rollout:
        """What a pending request has come to."""
        (request, sampling), sample = self._pending[name], output.outputs[0]
        assert sample.finish_reason in get_args(FinishReason), sample.finish_reason
        tokens, logprobs = np.asarray(sample.token_ids, np.int32), np.asarray(sample.logprobs.logprobs, np.float32)
        rollout = request.answered(tokens, logprobs, sample.finish_reason, self._version, sampling.temperature)
        for version, end in reversed(self._older.pop(name, [])):
            rollout.versions[:end] = version
        return rollout


def _pool_bytes() -> int:
    """Bytes in the pools of vLLM's sleep mode that torch counts as allocated, mapped or not."""
    from vllm.device_allocator.cumem import CuMemAllocator  # loads a CUDA library

    pools = CuMemAllocator.get_instance().pointer_to_data
    segments = torch.cuda.memory_snapshot(include_traces=False)
    return sum(segment["allocated_size"] for segment in segments if segment["address"] in pools)
