"""HTTP to one vLLM server, from a thread of its own, in which many requests wait for their responses at a time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import aiohttp

from polaris.errors import Refused, RunFailed, in_one_line

T = TypeVar("T")
_LOOK_S = 2.0
"""Between two looks at the server's health."""
_ANSWER_S = 10.0
"""Longest wait for a connection, and for the answer to a question that costs the server nothing."""
_ATTEMPTS = 5
"""Times that a request is sent to a server which is healthy all the while."""
_LONGEST_PAUSE_S = 8.0
_COUNTS = re.compile(rb"^vllm:(num_requests_waiting|generation_tokens_total)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
"""Of the metrics of a server, what is read here; it may have several of each."""
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""A response may take hours, in which a connection says nothing; one whose other end has vanished ends within three minutes."""


class ServerLost(RunFailed):
    """The server does not answer, fails, or is no longer the one that it was."""


class Failed(Exception):
    """One attempt failed, for a reason that may pass."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """Raises ValueError where it is none."""
        return json.loads(self.body)

    def __str__(self) -> str:
        try:
            said = str(self.json["error"]["message"])
        except (ValueError, KeyError, TypeError):
            said = self.body.decode(errors="replace")
        return f"status {self.status}, {in_one_line(said, 600)}"


class ServerClient:
    """Requests to the server at `url`, with the environment's `VLLM_API_KEY`, if set, as on the server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.waiting = 0
        """Requests of anyone that waited in the server, a few seconds ago."""
        self.drawn: int | None = None
        """Tokens that the server had drawn for anyone, a few seconds ago; None where it does not count them."""
        self._lost: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=f"server {self.url}", daemon=True)
        self._thread.start()
        self._session = self.start(_session()).result()
        self._healthy = asyncio.Event()

    def wait_for_it(self, longest_s: float, silence_s: float, remedy: Callable[[], str]) -> None:
        """Wait until the server is well; says so, with the `remedy`, where it is not at once. From then on it is looked at, and given up
        after a silence of `silence_s`.

        Raises:
            Refused: it was not well after `longest_s`.
        """
        until, said = time.monotonic() + longest_s, False
        while (reason := self.start(self._illness()).result()) is not None:
            if time.monotonic() > until:
                raise Refused(f"{self.url} was asked for its health for {longest_s:.0f} s and is not well: {reason}. {remedy()}")
            if not said:
                said = True
                print(
                    f"polaris: {self.url} is waited for, for {longest_s / 60:.2g} minutes: {reason}. {remedy()}",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(min(_LOOK_S, longest_s / 4))
        self._healthy.set()
        self._watching = self.start(self._watch(silence_s))

    def check(self) -> None:
        """Raise `ServerLost` once the server is given up."""
        if self._lost is not None:
            raise ServerLost(self._lost)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the client's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def ask(self, method: str, path: str, body: Any = None, *, limit_s: float | None = _ANSWER_S) -> Reply:
        """One request, once.

        Raises:
            ServerLost: the server was not reached, did not answer in time, or was given up meanwhile.
        """
        try:
            return self.start(self._ask(method, path, body, limit_s)).result()
        except CancelledError:
            self.check()
            raise
        except Failed as failed:
            raise ServerLost(f"{self.url}{path}: {failed}") from failed

    async def insist(self, path: str, body: Callable[[], Any]) -> Reply:
        """POST a request that may be repeated, until the server answers it: that it was done, or that it is wrong (status 400 to 499).

        Raises:
            Failed: it failed again and again, with the last reason, while the server was well.
        """
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(min(_LONGEST_PAUSE_S, 0.5 * 2**attempt))
            await self._healthy.wait()
            try:
                reply = await self._ask("POST", path, body(), None)
            except Failed as failed:
                reason = str(failed)
                continue
            if reply.status < 500 and reply.status not in (408, 429):
                return reply
            reason = str(reply)
        raise Failed(f"{_ATTEMPTS} times: {reason}")

    def close(self) -> None:
        """End all requests; the server drops what it draws for them. May be called twice."""
        if self._loop.is_closed():
            return
        self.start(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ask(self, method: str, path: str, body: Any, limit_s: float | None) -> Reply:
        self.check()
        timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=_ANSWER_S)
        try:
            async with self._session.request(method, self.url + path, json=body, timeout=timeout) as reply:
                return Reply(reply.status, await reply.read())
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            raise Failed(f"{type(error).__name__}: {in_one_line(error)}") from error

    async def _watch(self, silence_s: float) -> None:
        """Look at the server's health, and give it up when it was not well for `silence_s`."""
        since: float | None = None
        while True:
            reason = await self._illness()
            if reason is None:
                since = None
                self._healthy.set()
            else:
                since = time.monotonic() if since is None else since
                self._healthy.clear()
                if time.monotonic() - since >= silence_s:
                    break
            await asyncio.sleep(min(_LOOK_S, silence_s / 4))
        self._lost = f"{self.url} was asked for its health for {time.monotonic() - since:.0f} s and is not well: {reason}"
        await self._cancel_others()

    async def _illness(self) -> str | None:
        """Why the server is not well, or None."""
        try:
            reply = await self._ask("GET", "/health", None, _ANSWER_S)
            if reply.status != 200:
                return str(reply)
            metrics = (await self._ask("GET", "/metrics", None, _ANSWER_S)).body
        except Failed as failed:
            return str(failed)
        counts: dict[bytes, int] = {}
        for name, value in _COUNTS.findall(metrics):
            counts[name] = counts.get(name, 0) + int(float(value))
        self.waiting, self.drawn = counts.get(b"num_requests_waiting", 0), counts.get(b"generation_tokens_total")
        return None

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _end(self) -> None:
        await self._cancel_others()
        await self._session.close()


async def _session() -> aiohttp.ClientSession:
    key = os.environ.get("VLLM_API_KEY")
    # A connection that is kept for the next request may be closed by the server as that is sent: an order would fail for nothing.
    connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_socket)
    return aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {key}"} if key else {})


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    for level, option, value in _KEEP_ALIVE:
        opened.setsockopt(level, option, value)
    return opened
