"""Rollouts by vLLM's V1 engine inside the trainer's process. Only this file and `vllm_versions`, which comes first, import vLLM."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import vllm.v1.engine.core
import vllm.v1.sample.sampler
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.config import get_current_vllm_config
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator, _CPUSHMDistributed
from vllm.distributed.parallel_state import get_tp_group
from vllm.inputs import tokens_input
from vllm.model_executor.layers.rotary_embedding.yarn_scaling_rope import YaRNScalingRotaryEmbedding
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused, in_one_line
from polaris.model.rope import Rope, rotary_table
from polaris.rollout.checkpoint import check_requests, complete, expected_weights, stop_tokens
from polaris.rollout.isolation import any_kernel, preserved_process, preserved_randomness
from polaris.rollout.types import EngineRefused, GenerationInterrupted, Progress, RolloutRequest, Sampling
from polaris.rollout.vllm_versions import float32_head, sleep_options
from polaris.types import Rollout

PROGRESS_INTERVAL_S = 0.1
_UNFIT = (TypeError, KeyError, AttributeError, NotImplementedError, AssertionError, ImportError)
"""Errors that vLLM raises while it builds a model that it supports only in part."""


class VLLMEngine:
    """One engine per tensor-parallel group. If `rollout.tensor_parallel` > 1, its ranks make the same calls with the same arguments.

    Tensor parallelism uses the trainer's default process group (torchrun), which must exist first.
    """

    def __init__(
        self, model_path: str | Path, *, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope
    ) -> None:
        if rollout.tensor_parallel != 1 and not dist.is_initialized():
            raise Refused(f"rollout.tensor_parallel = {rollout.tensor_parallel} needs a process group; start with torchrun")
        _patch_vllm()
        self._on_gpu = torch.cuda.is_available()
        self._stop_tokens = list(stop_tokens(model_path))
        self._shapes, self._names = expected_weights(model_path)
        self._max_model_len = max_model_len
        self._tensor_parallel = rollout.tensor_parallel
        self._version = 0
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
            except _UNFIT as error:
                raise _unfit(arguments.model, error) from error
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
        llm = self._ready()
        check_requests(requests, self._max_model_len, self._vocab_size)
        pending = {str(index): request for index, request in enumerate(requests)}
        rollouts: dict[str, Rollout] = {}
        reported = time.monotonic()
        with preserved_randomness(), any_kernel():
            try:
                for name, request in pending.items():
                    llm.add_request(name, tokens_input(list(request.prompt_tokens)), self._parameters(request.seed, sampling))
                while pending:
                    if self._any_rank(should_stop()):
                        raise GenerationInterrupted
                    for output in self._step(llm):
                        rollout = self._rollout(pending.pop(output.request_id), output, sampling)
                        rollouts[output.request_id] = rollout
                        if on_finished is not None:
                            on_finished(rollout)
                    if time.monotonic() - reported >= PROGRESS_INTERVAL_S or not pending:
                        reported = time.monotonic()
                        on_progress(_progress(llm, rollouts, len(requests)))
            finally:
                if pending and self._llm is not None:
                    llm.abort_request(list(pending))
        return [rollouts[str(index)] for index in range(len(requests))]

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
        llm.add_request("score", tokens_input(list(tokens)), parameters)
        with preserved_randomness(), any_kernel():
            while not (outputs := self._step(llm)):
                pass
        return np.asarray(outputs[0].prompt_logprobs.logprobs, np.float32)

    def rotary_table(self, positions: Sequence[int]) -> torch.Tensor | None:
        """See `Engine.rotary_table`; positions beyond the table are left out. If vLLM runs transformers' modules, the table is theirs."""
        runner = self._ready().model_executor.driver_worker.worker.model_runner
        caches = {id(module): module.cos_sin_cache for module in runner.model.modules() if hasattr(module, "cos_sin_cache")}
        if not caches:
            return rotary_table(runner.model, positions, runner.dtype)
        if len(caches) > 1:
            return None
        (cache,) = caches.values()
        return cache[[position for position in positions if position < len(cache)]].cpu()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`. Any float dtype; vLLM casts to its own.

        Raises:
            RuntimeError: names or shapes are not those of the model, or a request is running. The engine is closed, since vLLM
                cannot undo a part of an update.
        """
        if self._llm is None or self._state == "asleep":
            raise RuntimeError("the rollout engine is closed or asleep; wake it before loading new weights")
        try:
            worker = self._llm.model_executor.driver_worker.worker
            named = ((self._names[name], weight) for name, weight in complete(weights, self._shapes))
            worker.reload_weights(weights_iterator=named)
            if not self._on_gpu:
                _repack_tied_head(worker.model_runner.model)
            if self._state == "empty":
                self._take(self._llm, "kv_cache")
            if not self._llm.reset_prefix_cache():
                raise RuntimeError("vLLM did not drop the KV cache of the old weights, since requests are running")
        except BaseException:
            self.close()
            raise
        self._state = "ready"
        self._version = version

    def sleep(self) -> None:
        """Drop weights and KV cache (vLLM's level 2). On CPU vLLM keeps the memory, but they cannot be used either."""
        if self._state != "asleep":
            llm = self._ready()
            if self._on_gpu:
                torch.cuda.synchronize()  # an interrupted step may still use the memory
            llm.sleep(level=2)
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

    def _parameters(self, seed: int, sampling: Sampling) -> SamplingParams:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=seed,
            stop_token_ids=self._stop_tokens,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    def _rollout(self, request: RolloutRequest, output: Any, sampling: Sampling) -> Rollout:
        sample = output.outputs[0]
        assert sample.finish_reason in ("stop", "length"), sample.finish_reason
        tokens, logprobs = np.asarray(sample.token_ids, np.int32), np.asarray(sample.logprobs.logprobs, np.float32)
        return request.answered(tokens, logprobs, sample.finish_reason, self._version, sampling.temperature)


def _unfit(model: str, error: Exception) -> EngineRefused:
    return EngineRefused(f'vLLM cannot run {model}; set rollout.engine = "transformers". It says: {in_one_line(error)}')


def check_arguments(arguments: EngineArgs) -> vllm.config.ModelConfig:
    """Let vLLM read the model's configuration; no weight is read.

    Raises:
        EngineRefused: vLLM does not run this model.
    """
    try:
        return arguments.create_model_config()
    except (ValueError, *_UNFIT) as error:
        raise _unfit(arguments.model, error) from error


def check_beside_trainer(arguments: EngineArgs) -> None:
    """As `check_arguments`, for an engine in a trainer's process.

    Raises:
        EngineRefused: vLLM has no code of its own for this model. It then decorates transformers' decoder class for torch.compile,
            and the trainer's model, of the same class, can no longer be called (vLLM 0.32).
    """
    if check_arguments(arguments).using_transformers_backend():
        raise EngineRefused(
            f"vLLM has no code of its own for {arguments.model} and runs transformers' classes, but changes them so that the trainer "
            'cannot use them in the same process; set rollout.engine = "transformers"'
        )


def engine_arguments(path: str, model: ModelConfig, rollout: RolloutConfig, max_model_len: int, seed: int, rope: Rope) -> EngineArgs:
    """Arguments that vLLM is started with."""
    on_gpu = torch.cuda.is_available()
    device: dict[str, Any] = (
        {
            "gpu_memory_utilization": rollout.gpu_memory_fraction,
            **sleep_options(),
            "max_num_batched_tokens": max(8192, rollout.max_concurrent),
        }
        if on_gpu
        else {
            "kv_cache_memory_bytes": rollout.kv_cache_mib << 20,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_model_len, rollout.max_concurrent, 4096),
        }
    )
    head = float32_head() if on_gpu and model.dtype != "float32" else {}
    launched = dist.is_initialized() and "LOCAL_RANK" in os.environ
    return EngineArgs(
        model=path,
        dtype=model.dtype,
        seed=seed,
        max_model_len=max_model_len,
        hf_overrides=rope.overrides | head,
        max_num_seqs=rollout.max_concurrent,
        tensor_parallel_size=rollout.tensor_parallel,
        distributed_executor_backend="external_launcher" if launched else "uni",
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        skip_tokenizer_init=True,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **device,
    )


def _patch_vllm() -> None:
    """Unpatched, vLLM destroys the trainer's process group on close and, on CPU, compiles one function with g++ (14 s) on first use.

    Its YaRN table ends at original positions x factor, even if `max_position_embeddings` is larger; it then reads beyond the table.
    """
    vllm.v1.engine.core.cleanup_dist_env_and_memory = lambda *args, **kwargs: None
    YaRNScalingRotaryEmbedding._compute_cos_sin_cache = _yarn_table  # type: ignore[method-assign, assignment]
    if not torch.cuda.is_available():
        vllm.v1.sample.sampler.batched_count_greater_than = lambda x, values: (x >= values).sum(-1)
        _CPUSHMDistributed.make_group_name = staticmethod(_shared_memory)  # type: ignore[method-assign, assignment]


def _shared_memory(group: CpuCommunicator) -> str:
    """Name of the memory in which CPU ranks add. vLLM's name is the same for all torchruns: two at once, or one after a kill, fail."""
    run = f"{os.environ['MASTER_PORT']}-{os.environ.get('TORCHELASTIC_RUN_ID', '')}"
    return f"polaris-{run}-{group.unique_name}-{'-'.join(map(str, group.ranks))}"


def _yarn_table(rotary: YaRNScalingRotaryEmbedding) -> torch.Tensor:
    """Cosines and sines of YaRN for all positions of the model being built: [max_position_embeddings, rotated dimensions]."""
    config = get_current_vllm_config().model_config.hf_text_config
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(positions, rotary._compute_inv_freq(rotary.scaling_factor))
    factor = config.rope_parameters.get("attention_factor", rotary.mscale)
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * factor


def _repack_tied_head(model: Any) -> None:
    """Repack a tied output head: on CPU it keeps the oneDNN-packed matrix of the old weights (vLLM 0.24 to 0.32)."""
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    embeddings = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding) and module not in heads]
    for head in heads:
        if any(head.weight is embedding.weight for embedding in embeddings):
            head.quant_method.process_weights_after_loading(head)


def _pool_bytes() -> int:
    """Bytes in the pools of vLLM's sleep mode that torch counts as allocated, mapped or not."""
    from vllm.device_allocator.cumem import CuMemAllocator  # loads a CUDA library

    pools = CuMemAllocator.get_instance().pointer_to_data
    segments = torch.cuda.memory_snapshot(include_traces=False)
    return sum(segment["allocated_size"] for segment in segments if segment["address"] in pools)


def _progress(llm: Any, finished: dict[str, Rollout], total: int) -> Progress:
    running = sum(request.num_output_tokens for request in llm.engine_core.engine_core.scheduler.running)
    return Progress(finished=len(finished), total=total, tokens=running + sum(len(rollout.tokens) for rollout in finished.values()))
