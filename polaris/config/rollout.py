"""Sampling of responses, and the proof that the engine serves the trainer's weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from polaris.config.bounds import at_least, at_most, positive
from polaris.config.names import shown
from polaris.config.own_code import DOOR
from polaris.doors import is_own
from polaris.errors import Refused

ENGINES = ("auto", "vllm", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the ranks of a job do: the last `engine_ranks` only sample, with one engine on each `ranks_per_engine` of them, and the others
    do all the rest. There are `servers` outside the job besides, which are engines too."""

    engine_ranks: int = 0
    ranks_per_engine: int = 1
    servers: int = 0

    def place_of(self, rank: int, size: int) -> tuple[int, int] | None:
        """The engine of a rank of the job, which has `size` of them, and its rank among that engine's; None if it trains."""
        trainers = size - self.engine_ranks
        return None if rank < trainers else divmod(rank - trainers, self.ranks_per_engine)

    def engine_of_server(self, server: int) -> int:
        """The number of a server among the engines: servers come behind those that have ranks."""
        return self.engine_ranks // self.ranks_per_engine + server


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """How training samples responses, and the engine that draws them; evaluation and the difficulty pass use the same engine."""

    engine: str = field(default="auto", metadata=DOOR)
    """vllm, transformers, or `auto`, which takes vLLM where it is installed; or a class of your own, `module:Class`."""
    episode: str | None = field(default=None, metadata=DOOR)
    """Function of your own, `module:function`, that hears each turn of a response and may write what the policy reads before its next
    one, such as a tool's output; by default a response has one turn."""
    max_turns: int = 8
    """Most turns of a response, where there is an episode."""
    samples_per_prompt: int = 8
    """Responses to each prompt of a step, which make its group; 2 at least."""
    temperature: float = 1.0
    """Training samples from softmax(logits / temperature) and nothing else: the policy that the loss differentiates."""
    max_response_tokens: int = 8192
    """Longest response in tokens; a longer one is cut off."""
    top_p: float = 1.0
    """Refused below 1: training samples from the policy that the loss differentiates. `polaris eval` and `[final]` may truncate."""
    top_k: int = -1
    """Refused unless -1 (all tokens), as top_p."""
    min_p: float = 0.0
    """Refused above 0, as top_p."""
    repetition_penalty: float = 1.0
    """Refused unless 1 (no penalty), as top_p."""
    oversample: float = 1.0
    """A step begins this many times trainer.prompts_per_step prompts, and takes the first groups that are complete and teach; the others
    are the first of the next step. Above 1, engines do not wait for the longest responses of a step."""
    carry_over: bool = False
    """A response that a step has not finished goes on in the next one behind the tokens it has, each with the log-prob and version of the
    weights that drew it; else it is drawn anew, and what was drawn of it is lost. For rollout.oversample above 1."""
    placement: Literal["colocated", "separate"] = "colocated"
    """`colocated`: engines and trainer share the devices and take turns. `separate`: some ranks only sample, all the time, while the others
    train; new weights reach them in the middle of responses, and each token has its own version."""
    engine_ranks: int = 0
    """separate: ranks that only sample, the last ones of the job, with one engine each (or on each rollout.tensor_parallel of them); the
    others train."""
    servers: tuple[str, ...] = ()
    """separate: vLLM servers outside the job that sample too, such as `["http://host:8000"]`, with or without rollout.engine_ranks."""
    max_staleness: int = 1
    """carry_over: most versions between the weights that draw and those that drew a response's first token. A step waits for responses
    that would be older in the next one; with or without carry_over, for those to a prompt that has waited for as many steps. separate:
    steps that sampling may run ahead of training, which bounds the same number; with 0 they take turns."""
    engine_timeout_minutes: float = 5.0
    """separate: an engine that draws no token and takes no weights for so long, or gives no sign of life, is ended and started again."""
    engine_restarts: int = 8
    """separate: how often engines may be lost since the run was started or resumed, all together; at the next loss it stops."""
    tensor_parallel: int = 1
    """Ranks that share one vLLM engine."""
    quantization: Literal["none", "fp8"] = "none"
    """fp8: vLLM rounds the weights of its linear layers to 8 bits, with a scale for each block of 128 x 128, whenever it is given some. The
    trainer does not, so that an importance correction must be on; sync/logprob_gap shows how far the two are apart."""
    max_concurrent: int = 256
    """Sequences that one engine decodes together."""
    gpu_memory_fraction: float = 0.8
    """Share of the GPU's memory for vLLM's weights and KV cache (CUDA only)."""
    kv_cache_mib: int = 256
    """Size of the KV cache of one engine (CPU only)."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES and not is_own(self.engine):
            raise Refused(
                f"rollout.engine = {shown(self.engine)} is not one of {', '.join(map(repr, ENGINES))}, nor a module:Class of your own"
            )
        at_least(
            "rollout",
            1,
            samples_per_prompt=self.samples_per_prompt,
            max_turns=self.max_turns,
            max_response_tokens=self.max_response_tokens,
            tensor_parallel=self.tensor_parallel,
            max_concurrent=self.max_concurrent,
            kv_cache_mib=self.kv_cache_mib,
        )
        at_most("rollout", 65536, max_concurrent=self.max_concurrent)
        self._check_carrying()
        self._check_placement()
        if not self.temperature > 0:
            raise Refused(f"rollout.temperature = {self.temperature} must be above 0: training needs samples, not greedy text")
        if not 0 < self.gpu_memory_fraction < 1:
            raise Refused(f"rollout.gpu_memory_fraction = {self.gpu_memory_fraction} must lie between 0 and 1")
        changed = [
            name
            for name, neutral in (("top_p", 1.0), ("top_k", -1), ("min_p", 0.0), ("repetition_penalty", 1.0))
            if getattr(self, name) != neutral
        ]
        if changed:
            raise Refused(
                f"rollout.{', rollout.'.join(changed)} would make the sampled distribution differ from the policy that the loss "
                "differentiates; remove it (evaluation may truncate, training may not)"
            )

    def _check_carrying(self) -> None:
        at_least("rollout", 1, oversample=self.oversample)
        at_least("rollout", int(self.oversample > 1), max_staleness=self.max_staleness)
        at_most("rollout", 2, oversample=self.oversample)
        if self.carry_over and self.oversample == 1:
            raise Refused(
                "rollout.carry_over has no effect where a step begins no more prompts than it takes: every response must end then; set "
                "rollout.oversample, such as 1.25"
            )
        if self.episode is not None and self.oversample > 1:
            raise Refused("rollout.oversample cuts responses off, which rollout.episode does not allow; remove one of them")

    def _check_placement(self) -> None:
        at_least("rollout", 0, engine_ranks=self.engine_ranks, engine_restarts=self.engine_restarts)
        positive("rollout", engine_timeout_minutes=self.engine_timeout_minutes)
        self._check_servers()
        if self.quantization != "none" and (self.engine not in ("auto", "vllm") or self.servers):
            other = "rollout.servers" if self.servers else f"rollout.engine = {shown(self.engine)}"
            raise Refused(
                f"rollout.quantization = {self.quantization!r} is done by vLLM engines of the job, not by {other}; remove one of them"
            )
        if self.placement == "colocated":
            if self.engine_ranks:
                raise Refused(f'rollout.engine_ranks = {self.engine_ranks} needs rollout.placement = "separate"; set it, or remove them')
            return
        if not self.engine_ranks and not self.servers:
            raise Refused('rollout.placement = "separate" needs engines; set rollout.engine_ranks to 1 or more, or rollout.servers')
        if self.oversample > 1:
            raise Refused(
                'rollout.oversample cuts long responses off so that engines need not wait for them; with rollout.placement = "separate" '
                "they never wait: remove it, and let rollout.max_staleness bound how far they run ahead"
            )
        if self.episode is not None:
            raise Refused(
                'rollout.episode plays its turns where the trainer is, and rollout.placement = "separate" has no engine there; '
                "remove one of them"
            )
        if self.engine_ranks % self.tensor_parallel:
            raise Refused(
                f"rollout.engine_ranks = {self.engine_ranks} do not divide into engines of rollout.tensor_parallel = "
                f"{self.tensor_parallel} ranks; change one of them"
            )

    def _check_servers(self) -> None:
        if not self.servers:
            return
        for url in self.servers:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise Refused(f"rollout.servers: {shown(url)} is no address of a server; write one such as 'http://host:8000'")
        roots = [url.rstrip("/") for url in self.servers]
        if twice := [url for url in roots if roots.count(url) > 1]:
            raise Refused(f"rollout.servers names {twice[0]} twice; each server is one engine: name it once")
        if self.placement != "separate":
            raise Refused('rollout.servers sample while others train, which needs rollout.placement = "separate"; set it, or remove them')
        if self.engine not in ("auto", "vllm"):
            raise Refused(f"rollout.servers are vLLM's, and rollout.engine = {shown(self.engine)} is not; remove one of them")

    @property
    def roles(self) -> Roles:
        """What the ranks of a training job do."""
        shared = self.tensor_parallel if self.engine_ranks else 1
        return Roles(engine_ranks=self.engine_ranks, ranks_per_engine=shared, servers=len(self.servers))


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """The proof after every weight sync that the engine serves the trainer's weights."""

    gap_factor: float = 3.0
    """The gap between engine and trainer is measured at start, on responses that the base model samples; after a weight sync, a mean gap
    beyond this multiple of it stops the run."""
    base_tolerance: float | None = None
    """Largest mean gap at start, in nats; by default 3e-4 in float32, 0.25 in half precision."""

    def __post_init__(self) -> None:
        at_least("sync", 1, gap_factor=self.gap_factor)
        positive("sync", base_tolerance=self.base_tolerance)
