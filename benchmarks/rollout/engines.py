"""A model of a rollout engine: how long a step of its sequences takes, and which of them fit into its memory.

Times are whole picoseconds, so that many steps at once take exactly as long as the same steps one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

SECOND = 10**12
"""Picoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A step of n sequences with `context` tokens together takes step + n sequence + context token, and more if it reads prompts: `prefill`
    for each token. All in picoseconds. At most `most` sequences run together, and their tokens are at most `memory`."""

    step: int
    sequence: int
    token: int
    prefill: int
    most: int
    memory: int

    def duration(self, sequences: int, context: int, steps: int) -> int:
        """Of so many steps without prefill; the context grows by a token of each sequence."""
        grown = steps * context + sequences * (steps * (steps - 1) // 2)
        return steps * (self.step + self.sequence * sequences) + self.token * grown


H200 = Hardware(step=5 * 10**9, sequence=30 * 10**6, token=45_000, prefill=20 * 10**6, most=256, memory=700_000)
"""Assumed, not measured: a dense 4B model in bfloat16 (8 GB of weights, 147 kB of KV cache a token: 36 layers, 8 heads of 128) on an H200
of 4.8 TB/s and 141 GB. A step reads the weights in 1.7 ms and costs 3 ms beside it; a sequence costs 8 GFLOP of a matrix product at 270
TFLOP/s; a token of context is read at 3.3 TB/s; prefill runs at 400 TFLOP/s; 103 GB are KV cache."""


@dataclass(slots=True)
class Response:
    """Response `sample` to a prompt. `length` are its tokens in the end, `parts` those drawn so far as (version, tokens); `prompt_tokens`
    are read before it."""

    prompt: int
    sample: int
    length: int
    prompt_tokens: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def drawn(self) -> int:
        return sum(tokens for _, tokens in self.parts)

    def draw(self, version: int, tokens: int) -> None:
        """Further tokens, by the weights of `version`."""
        if self.parts and self.parts[-1][0] == version:
            tokens += self.parts.pop()[1]
        self.parts.append((version, tokens))


class Engine:
    """Sequences that decode together, first come, first served. Where memory is full, the last one is put back, and read anew later.

    `version` is the weights'. `plan` decides on the next steps, `draw` takes them; both as vLLM V1's scheduler does.
    """

    def __init__(self, hardware: Hardware, version: int) -> None:
        self.hardware, self.version = hardware, version
        self._running: list[tuple[Response, int]] = []
        """With the number of the step after which it ends."""
        self._begun: dict[int, int] = {}
        """id -> number of the step before its first one since it was admitted."""
        self._waiting: deque[Response] = deque()
        self._steps, self._context, self._prefill = 0, 0, 0
        self.used = 0
        """Picoseconds in which it has worked."""

    @property
    def unfinished(self) -> int:
        return len(self._running) + len(self._waiting)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, responses: Sequence[Response]) -> None:
        self._waiting.extend(responses)

    def plan(self) -> int:
        """Put back and admit; the most steps that can follow without another such decision."""
        hardware = self.hardware
        while len(self._running) > 1 and self._context + len(self._running) > hardware.memory:
            self._waiting.appendleft(self._put_back())
        self._prefill, before = 0, len(self._running)
        while self._waiting and len(self._running) < hardware.most and self._fits(self._waiting[0]):
            self._admit(self._waiting.popleft())
        if len(self._running) > before:
            return 1
        ends = min(end for _, end in self._running) - self._steps
        return max(1, min(ends, (hardware.memory - self._context) // len(self._running)))

    def duration(self, steps: int) -> int:
        """Picoseconds of so many steps of those that `plan` has found."""
        return self.hardware.duration(len(self._running), self._context, steps) + self.hardware.prefill * self._prefill

    def draw(self, steps: int) -> list[Response]:
        """Take so many steps; the responses that have ended, in the order in which they were admitted."""
        self.used += self.duration(steps)
        self._steps += steps
        self._context += steps * len(self._running)
        ended = [response for response, end in self._running if end == self._steps]
        if ended:
            self._running = [one for one in self._running if one[1] != self._steps]
            for response in ended:
                self._context -= self._leave(response)
        return ended

    def abort(self) -> list[Response]:
        """Stop everything; the responses that have not ended, and their tokens so far."""
        cut = [response for response, _ in self._running]
        for response in cut:
            self._leave(response)
        cut += self._waiting
        self._running, self._waiting, self._context = [], deque(), 0
        return cut

    def _fits(self, response: Response) -> bool:
        size = response.prompt_tokens + response.drawn
        return not self._running or self._context + size + len(self._running) + 1 <= self.hardware.memory

    def _admit(self, response: Response) -> None:
        size = response.prompt_tokens + response.drawn
        self._begun[id(response)] = self._steps
        self._running.append((response, self._steps + response.length - response.drawn))
        self._context += size
        self._prefill += size

    def _put_back(self) -> Response:
        response, _ = self._running.pop()
        self._context -= self._leave(response)
        return response

    def _leave(self, response: Response) -> int:
        """Note the tokens that it has drawn since it was admitted; its context."""
        drawn = self._steps - self._begun.pop(id(response))
        if drawn:
            response.draw(self.version, drawn)
        return response.prompt_tokens + response.drawn
