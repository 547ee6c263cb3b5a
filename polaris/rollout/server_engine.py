"""A vLLM server outside the job as a rollout engine: requests and weights by its own HTTP endpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import RunFailed
from polaris.model.folder import transformers_config
from polaris.model.rope import Rope
from polaris.rollout.checkpoint import check_requests, stop_tokens
from polaris.rollout.server_check import Wanted, check_server
from polaris.rollout.server_client import Failed, Reply, ServerClient, ServerLost
from polaris.rollout.types import (
    BRIDGE_BROKE,
    BridgePlace,
    Engine,
    GenerationInterrupted,
    Progress,
    RolloutRequest,
    Sampling,
    TransferBroken,
)
from polaris.types import FinishReason, Rollout

if TYPE_CHECKING:
    import torch

START_S, SILENCE_S = 900.0, 60.0
"""Longest wait for a server that is not there yet, and for one that has stopped to answer."""
RESERVED = 8
"""Sequences of the server that are for requests which come first: as many as a probe has."""
_STEP_S = 0.05
"""Longest wait of one `step`."""
_INTERVAL_S = 0.1
"""Between two reports of progress, and between two demands to abort."""
_FRESH = "default"
"""The label of vLLM for the weights of the checkpoint that it was started with."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A request, its name in the server, and how many weights the server had before those that it was sent to."""

    name: str
    request: RolloutRequest
    sampling: Sampling
    first: bool
    earlier: int = 0


class ServerEngine(Engine):
    """One server, which may have several workers; an `InFlight` engine whose weights come over a bridge (`take_weights`).

    vLLM labels weights and says which label drew each token. Ours are of this object alone. So a server that was started again, or given
    weights by another job, cannot pass its tokens off as those of our weights: such a response raises `ServerLost`.
    """

    def __init__(
        self,
        url: str,
        model_path: str | Path,
        *,
        model: ModelConfig,
        rollout: RolloutConfig,
        max_model_len: int,
        rope: Rope,
        start_s: float = START_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._stop_tokens, self._max_model_len = list(stop_tokens(model_path)), max_model_len
        self._vocab_size = transformers_config(model_path).get_text_config(decoder=True).vocab_size
        self._own = token_hex(4)
        self._number = 0
        self._queue: deque[_Pending] = deque()
        self._sent: dict[_Pending, Future[Rollout]] = {}
        self._ended: SimpleQueue[_Pending] = SimpleQueue()
        self._place: BridgePlace | None = None
        self._served: list[tuple[str, int]] = []
        """The labels of all weights that the server had, each with its version."""
        self._aborting = False
        self._client = ServerClient(url)
        try:
            wanted = Wanted(
                model_path=str(model_path),
                dtype=model.dtype,
                max_model_len=max_model_len,
                most=rollout.max_concurrent + RESERVED,
                rope=rope,
            )
            self._client.wait_for_it(start_s, silence_s, lambda: wanted.remedy(url))
            self._server = check_server(self._client, wanted)
            self._served = [(_FRESH, 0)]
            if self._get("/weight_info")["weight_version"] != _FRESH or self._get("/is_paused")["is_paused"]:
                self._update(0, bridge=None)
        except BaseException:
            self._client.close()
            raise

    @property
    def workers(self) -> int:
        """Members of a bridge that the server takes."""
        return self._server.workers

    @property
    def version(self) -> int:
        return self._served[-1][1]

    @property
    def running(self) -> int:
        return len(self._sent) + len(self._queue)

    @property
    def waiting(self) -> int:
        return len(self._queue) + self._client.waiting

    @property
    def tokens(self) -> int:
        """All that the server has drawn since it was started, a few seconds ago: it says which tokens when a response ends."""
        return self._client.drawn or 0

    def submit(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """See `Stepwise.submit`."""
        self._queue.extend(self._named(requests, sampling, first=False))
        self._send()

    def submit_first(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        """See `InFlight.submit_first`: `RESERVED` places in the server are for these."""
        self._queue.extendleft(reversed(self._named(requests, sampling, first=True)))
        self._send()

    def step(self) -> list[Rollout]:
        """Wait a moment for responses that end.

        Raises:
            ServerLost: the server is silent, fails, or has other weights than ours; it was asked again before.
        """
        rollouts = [self._sent.pop(one).result() for one in self._come(_STEP_S)]
        self._send()
        return rollouts

    def abort(self) -> list[Rollout]:
        """See `Stepwise.abort`; a response that has ended meanwhile comes as it is."""
        self._queue.clear()
        order, rollouts = list(self._sent), {}
        self._aborting = True
        while self._sent:
            self._order("/inference/v1/abort_requests", {"request_ids": [f"generate-tokens-{one.name}" for one in self._sent]})
            for one in self._come(_INTERVAL_S):
                rollouts[one] = self._sent.pop(one).result()
        self._aborting = False
        return [rollouts[one] for one in order if len(rollouts[one].tokens)]

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        *,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_finished: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """See `Engine.generate`; raises `ServerLost` too."""
        assert not self.running, "requests of `submit` are running"
        self.submit(requests, sampling)
        found: dict[tuple[str, int, int], Rollout] = {}
        while self.running:
            if should_stop():
                self.abort()
                raise GenerationInterrupted
            for rollout in self.step():
                found[rollout.prompt_id, rollout.sample, rollout.seed] = rollout
                if on_finished is not None:
                    on_finished(rollout)
            on_progress(Progress(finished=len(found), total=len(requests), tokens=sum(len(one.tokens) for one in found.values())))
        return [found[one.prompt_id, one.sample, one.seed] for one in requests]

    def take_weights(self, place: BridgePlace, version: int) -> None:
        """Let the server take weights from the bridge at `place`, in the middle of what it draws, and serve them as `version`. See
        `InFlight.exchange_weights`. A place that it has is not joined again.

        Raises:
            TransferBroken: the server draws nothing until it has others.
            ServerLost: the weights are not those of the model, or the server fails.
        """
        self._update(version, place)

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        raise NotImplementedError

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        raise NotImplementedError("a server takes weights from a bridge: `take_weights`")

    exchange_weights = load_weights

    def sleep(self) -> None:
        """Nothing: its devices are its own."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """See `Engine.close`. The server drops our requests, and lives on."""
        self._client.close()

    def _named(self, requests: Sequence[RolloutRequest], sampling: Sampling, *, first: bool) -> list[_Pending]:
        check_requests(requests, self._max_model_len, self._vocab_size)
        number, self._number = self._number, self._number + len(requests)
        return [_Pending(f"{self._own}-{number + index}", request, sampling, first) for index, request in enumerate(requests)]

    def _send(self) -> None:
        """Send requests that the server has places for."""
        most = self._server.most
        while self._queue and len(self._sent) < most - (0 if self._queue[0].first else min(RESERVED, most // 2)):
            one = self._queue.popleft()
            self._sent[one] = future = self._client.start(self._draw(one))
            future.add_done_callback(lambda _, one=one: self._ended.put(one))  # type: ignore[misc]

    def _come(self, longest_s: float) -> list[_Pending]:
        """Requests that have ended; waits for one."""
        come: list[_Pending] = []
        with suppress(Empty):
            come.append(self._ended.get(timeout=longest_s))
            while True:
                come.append(self._ended.get_nowait())
        self._client.check()
        return come

    async def _draw(self, one: _Pending) -> Rollout:
        """In the client's thread: the rollout of a request, which is sent again where that may help."""

        def body() -> dict[str, Any]:
            one.earlier = len(self._served) - 1
            return {"request_id": one.name, "token_ids": one.request.prompt_tokens, "sampling_params": self._parameters(one)}

        try:
            reply = await self._client.insist("/inference/v1/generate", body)
        except Failed as failed:
            raise ServerLost(f"{self._client.url} failed to draw a response to {one.request.prompt_id} {failed}") from failed
        if reply.status != 200:
            raise RunFailed(f"{self._client.url} refuses to draw a response to {one.request.prompt_id}: {reply}")
        return self._rollout(one, reply)

    def _parameters(self, one: _Pending) -> dict[str, Any]:
        request, sampling = one.request, one.sampling
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": min(request.limit(sampling), self._max_model_len - len(request.prompt_tokens)),
            "seed": request.seed,
            "stop_token_ids": self._stop_tokens,
            "logprobs": 0,
            "flat_logprobs": True,
            "detokenize": False,
        }

    def _rollout(self, one: _Pending, reply: Reply) -> Rollout:
        (choice,) = reply.json["choices"]
        content, reason = choice["logprobs"]["content"], choice["finish_reason"]
        tokens = np.asarray(choice["token_ids"], np.int32)
        logprobs = np.asarray([entry["logprob"] for entry in content], np.float32)
        if reason not in get_args(FinishReason) or (reason == "abort" and not self._aborting):
            raise ServerLost(f"{self._client.url} ended a response to {one.request.prompt_id} with {reason!r}, for which nobody asked here")
        rollout = one.request.answered(tokens, logprobs, reason, self.version, one.sampling.temperature)
        rollout.versions[:] = self._versions_of(choice["weight_versions"] or (), len(tokens), one)
        return rollout

    def _versions_of(self, spans: Sequence[dict[str, Any]], count: int, one: _Pending) -> np.ndarray:
        """The version [count] of each token, of weights that we gave no earlier than when the request was sent."""
        versions, served = np.full(count, -1, np.int32), dict(self._served[one.earlier :])
        for span in spans:
            if span["version"] not in served:
                raise ServerLost(
                    f"{self._client.url} drew tokens with weights labelled {span['version']!r}, which this job did not give it: it was "
                    "started again, or another job uses it"
                )
            versions[span["start"] : span["end"]] = served[span["version"]]
        assert (versions >= 0).all(), spans
        return versions

    def _update(self, version: int, bridge: BridgePlace | None) -> None:
        """Weights from `bridge`, or else from the server's checkpoint, in the order that keeps every token on one of our labels."""
        label = f"polaris-{self._own}-{len(self._served)}"
        self._order("/pause?mode=keep")  # vLLM ends the step that runs, and holds all requests as they are
        self._order("/update_weight_version", {"new_version": f"{label}-incomplete"})
        if bridge is not None and bridge != self._place:
            self._place = None
            self._transfer("/init_weight_transfer_engine", {"init_info": {"place": asdict(bridge)}})
            self._place = bridge
        self._begin()
        self._transfer("/update_weights", {"update_info": {"bridge": bridge is not None}})
        self._order("/finish_weight_update", {"weight_version": label})
        if not self._order("/reset_prefix_cache?reset_running_requests=true")["success"]:
            raise ServerLost(f"{self._client.url} did not drop the KV cache of the old weights")
        self._served.append((label, version))
        self._order("/resume")

    def _transfer(self, path: str, body: Any) -> None:
        """As `_order`, of something that others may break."""
        try:
            self._order(path, body)
        except ServerLost as error:
            self._place = None
            if BRIDGE_BROKE in str(error):
                raise TransferBroken(str(error)) from error
            raise

    def _begin(self) -> None:
        """Begin an update. One that was never ended, since its driver was killed, is ended before: with our backend that does nothing."""
        try:
            self._order("/start_weight_update")
        except ServerLost as error:
            if "already active" not in str(error):
                raise
            self._order("/finish_weight_update")
            self._order("/start_weight_update")

    def _order(self, path: str, body: Any = None) -> Any:
        """What the server answers to a request that it must obey, however long it takes."""
        reply = self._client.ask("POST", path, body, limit_s=None)
        if reply.status != 200:
            raise ServerLost(f"{self._client.url}{path} failed: {reply}")
        return reply.json if reply.body else None

    def _get(self, path: str) -> Any:
        return self._client.ask("GET", path).json
