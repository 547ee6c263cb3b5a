"""Samples from an OpenAI-compatible server (`/chat/completions`), which renders the chat template itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from polaris.errors import RunFailed
from polaris.evaluation.samples import Sample
from polaris.evaluation.settings import EvalSettings, ServerSettings
from polaris.evaluation.source import Hooks, Wanted
from polaris.evaluation.suites import Suite
from polaris.reward.thinking import Thinking
from polaris.rollout.types import GenerationInterrupted

CONNECT_LIMIT_S = 30.0
LONGEST_PAUSE_S = 60.0
NAMED_AFTER_S = 10.0
"""Seconds of silence after which a server is reported."""
_HELD_S = 5.0
"""Seconds after which an open connection counts as working on its response."""
_POLL_S = 0.1
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 8),
)
"""Keep-alive: proxies keep a connection open for hours, and a vanished machine is noticed within five minutes."""


class ServerFailed(RunFailed):
    """The server refused a request, or could not be reached for too long."""


class ServerSource:
    """Requests run in threads, one connection each; a response may take hours, so only connecting has a time limit.

    Every request carries the environment's `OPENAI_API_KEY`, if set.
    """

    def __init__(self, settings: EvalSettings, suites: Sequence[Suite]) -> None:
        assert settings.server is not None
        self._settings, self._server = settings, settings.server
        self._messages = {(suite.name, problem.id): problem.messages for suite in suites for problem in suite.problems}

    def identity(self) -> dict[str, Any]:
        return {"server_model": self._server.model}

    def thinking(self) -> Thinking | None:
        return None

    def describe(self) -> dict[str, str]:
        return {"model": self._server.model, "server": self._server.url}

    def draw(self, rope_factor: float, wanted: Sequence[Wanted], hooks: Hooks) -> None:
        """See `Source.draw`; the rope is the server's. Raises `ServerFailed` too, after handing over finished samples."""
        client, outage = _Client(self._server), _Outage(self._server, hooks)
        finished = tokens = 0
        with ThreadPoolExecutor(self._server.concurrency, thread_name_prefix="server") as threads:
            pending: set[Future[Sample]] = {threads.submit(self._sample, client, one) for one in wanted}
            try:
                while pending:
                    done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                    samples = [future.result() for future in done if future.exception() is None]
                    for sample in samples:
                        hooks.on_sample(sample)
                    finished, tokens = finished + len(samples), tokens + sum(sample.tokens for sample in samples)
                    hooks.on_progress(finished, tokens)
                    outage.name(client.silence())
                    for future in done:
                        future.result()
                    if hooks.should_stop():
                        raise GenerationInterrupted
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                client.close()

    def _sample(self, client: _Client, one: Wanted) -> Sample:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self._server.model,
            "messages": self._messages[one.key[:2]],
            "temperature": settings.temperature,
            "top_p": 1.0,
            "max_tokens": settings.max_response_tokens,
            "seed": one.seed,
        }
        body |= {"top_k": settings.top_k} if settings.top_k > 0 else {}
        body |= {"chat_template_kwargs": settings.chat_template_options} if settings.chat_template_options else {}
        reply = client.post("/chat/completions", body, about=f"{one.key.suite}/{one.key.problem}")
        try:
            choice = reply["choices"][0]
            return Sample(
                key=one.key,
                seed=one.seed,
                response=_text(choice["message"]),
                tokens=int(reply["usage"]["completion_tokens"]),
                finish_reason="length" if choice["finish_reason"] == "length" else "stop",
            )
        except (KeyError, IndexError, TypeError) as error:
            raise ServerFailed(f"{self._server.url} answers in another format ({error!r}); is it OpenAI's chat completions?") from error


def _text(message: dict[str, Any]) -> str:
    """The whole response; a server with a reasoning parser sends thinking separately."""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    if not thinking:
        return content or ""
    return f"<think>{thinking}" if content is None else f"<think>{thinking}</think>{content}"


class _Outage:
    """Reports once that the server does not answer, and once that it answers again."""

    def __init__(self, server: ServerSettings, hooks: Hooks) -> None:
        self._server, self._hooks, self._named = server, hooks, False

    def name(self, silence: _Silence | None) -> None:
        if silence is None and self._named:
            self._hooks.on_trouble(f"{self._server.url} answers again")
            self._named = False
        elif silence is not None and not self._named and silence.seconds >= NAMED_AFTER_S:
            left = max(0.0, self._server.patience_s - silence.seconds)
            self._hooks.on_trouble(
                f"{self._server.url} has not answered for {silence.seconds:.0f} s ({silence.reason}); retrying for {left:.0f} s more"
            )
            self._named = True


@dataclass(frozen=True, slots=True)
class _Silence:
    """How long the server has answered no request, and the last error."""

    seconds: float
    reason: str


class _Client:
    """POSTs JSON from any thread; `close` ends requests in progress."""

    def __init__(self, server: ServerSettings) -> None:
        self._url, self._attempts, self._patience_s = urlsplit(server.url.rstrip("/")), server.attempts, server.patience_s
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._reason = ""
        self._open: dict[socket.socket, float] = {}
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def post(self, path: str, body: dict[str, Any], about: str) -> dict[str, Any]:
        """The reply. A request is sent up to `attempts` times if the server answers 408, 429 or 5xx, or drops it while answering others;
        one that does not reach the server is repeated for `patience_s` seconds.

        Raises:
            ServerFailed: with `about`, the subject of the request.
        """
        url, failures, pause = f"{self._url.geturl()}{path}", 0, 1.0
        while not self._closed.is_set():
            try:
                status, text = self._post_once(path, json.dumps(body).encode())
            except (OSError, http.client.HTTPException) as error:
                reason = f"{type(error).__name__}: {error}"
                failures += self._unanswered(reason)
            else:
                self._answered()
                reason = f"status {status}, {text[:500].decode(errors='replace')}"
                with contextlib.suppress(ValueError):
                    if status == 200:
                        return dict(json.loads(text))
                if status not in (200, 408, 429) and status < 500:
                    raise ServerFailed(f"{url} refuses the request for {about}: {reason}")
                failures += 1
            if failures == self._attempts:
                raise ServerFailed(f"{url} failed {failures} times for {about}; last: {reason}")
            self._closed.wait(min(pause, self._patience_s / 4))
            pause = min(LONGEST_PAUSE_S, 2 * pause)
        raise ServerFailed(f"{url}: the request for {about} was given up after another one failed")

    def silence(self) -> _Silence | None:
        """None while the server answers or works on a response."""
        with self._lock:
            if any(time.monotonic() - since >= _HELD_S for since in self._open.values()):
                self._silent_since = None
            return None if self._silent_since is None else _Silence(time.monotonic() - self._silent_since, self._reason)

    def _answered(self) -> None:
        with self._lock:
            self._silent_since = None

    def _unanswered(self, reason: str) -> bool:
        """Whether this failure begins a silence. Raises `ServerFailed` after too long a silence."""
        before = self.silence()
        with self._lock:
            self._silent_since, self._reason = self._silent_since or time.monotonic(), reason
        if before is not None and before.seconds > self._patience_s:
            raise ServerFailed(
                f"{self._url.geturl()} has not answered for {before.seconds:.0f} s ({reason}); every response so far is kept. Start the "
                "server, and the same command goes on (--server-patience sets how long to wait)"
            )
        return before is None

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            for opened in self._open:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    def _post_once(self, path: str, data: bytes) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=CONNECT_LIMIT_S)
        with contextlib.closing(connection):
            connection.connect()
            opened: socket.socket = connection.sock
            opened.settimeout(None)
            for level, option, value in _KEEP_ALIVE:
                opened.setsockopt(level, option, value)
            with self._lock:
                if self._closed.is_set():
                    raise ConnectionAbortedError("stopped")
                self._open[opened] = time.monotonic()
            try:
                connection.request("POST", self._url.path + path, data, self._headers)
                reply = connection.getresponse()
                return reply.status, reply.read()
            finally:
                with self._lock:
                    self._open.pop(opened, None)
