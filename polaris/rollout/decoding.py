"""Continuous batching for the transformers engine: sequences join and leave while others decode."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from polaris.rollout.slots import KVSlots
from polaris.rollout.types import RolloutRequest, Sampling

PREFILL_TOKENS = 8192


@dataclass(slots=True)
class Rows:
    """The running sequences; row i uses KV slot i. Tensors [n], but `uniform` is [n, max_tokens]."""

    request: torch.Tensor
    """Index of the request."""
    token: torch.Tensor
    """Last token; its keys and values are not in the KV slot yet."""
    length: torch.Tensor
    """Positions filled in the KV slot."""
    count: torch.Tensor
    """Tokens sampled so far."""
    limit: torch.Tensor
    """Tokens after which the response is cut."""
    uniform: torch.Tensor
    """Uniform random numbers, one per token."""

    def pick(self, rows: torch.Tensor) -> Rows:
        return Rows(*(getattr(self, field.name)[rows] for field in fields(self)))

    def extend(self, other: Rows) -> Rows:
        return Rows(*(torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)))


class Decoding:
    """Draws the requests that it is given, with at most `slots.count` sequences at a time.

    Prompts that are equal are prefilled once per admission; the last prompt token of each sequence is its first decoding step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        slots: KVSlots,
        sampling: Sampling,
        stops: Sequence[int],
        max_length: int,
    ) -> None:
        self._model, self._slots, self.sampling = model, slots, sampling
        self.requests: list[RolloutRequest] = []
        self._device = model.device
        self._max_length = max_length
        self._is_stop = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=self._device)
        self._is_stop[list(stops)] = True
        self._waiting: deque[int] = deque()
        self._rows = self._new_rows([])
        self._history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._lengths: dict[int, int] = {}

    @property
    def unfinished(self) -> int:
        """Requests that have not ended."""
        return len(self.requests) - len(self._lengths)

    @property
    def waiting(self) -> int:
        """Requests for which no slot is free."""
        return max(0, len(self._waiting) - self._slots.count + len(self._rows.token))

    @property
    def tokens(self) -> int:
        """Tokens that the running sequences have so far."""
        return int(self._rows.count.sum())

    def add(self, requests: Sequence[RolloutRequest]) -> None:
        """Take further requests; they are admitted when there is room."""
        self._waiting.extend(range(len(self.requests), len(self.requests) + len(requests)))
        self.requests.extend(requests)

    def step(self) -> list[int]:
        """Admit what fits, then sample one token per running sequence; returns the indices of requests that ended."""
        free = self._slots.count - len(self._rows.token)
        if self._waiting and (free == self._slots.count or 4 * free >= self._slots.count):
            self._admit([self._waiting.popleft() for _ in range(min(free, len(self._waiting)))])
        rows = self._rows
        mask = self._slots.begin_step(rows.length)
        logits = self._model(
            input_ids=rows.token[:, None],
            position_ids=rows.length[:, None],
            attention_mask=mask,
            past_key_values=self._slots,
            use_cache=True,
        ).logits[:, -1]
        uniform = rows.uniform.gather(1, rows.count[:, None])[:, 0]
        rows.token, logprobs = draw(logits, uniform, self.sampling)
        self._history.append((rows.request, rows.token, logprobs))
        rows.length, rows.count = rows.length + 1, rows.count + 1
        return self._retire(self._is_stop[rows.token] | (rows.count >= rows.limit))

    def results(self, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray, bool]]:
        """Tokens int32, log-probs float32, and whether a stop token came, of requests that the last step ended, or that still run."""
        steps = max(self._lengths[index] for index in indices)
        request, token, logprob = (torch.cat(column) for column in zip(*self._history[-steps:], strict=True))
        order = request.argsort(stable=True)
        stopped = self._is_stop[token][order].cpu().numpy()
        tokens, logprobs = token[order].int().cpu().numpy(), logprob[order].cpu().numpy()
        ends = request.bincount(minlength=len(self.requests)).cumsum(0).tolist()
        spans = [(ends[index] - self._lengths[index], ends[index]) for index in indices]
        return [(tokens[start:end], logprobs[start:end], bool(stopped[end - 1])) for start, end in spans]

    def abort(self) -> list[int]:
        """End all requests; the indices of those that have drawn a token."""
        begun: list[int] = self._rows.request.tolist()
        self._lengths |= zip(begun, self._rows.count.tolist(), strict=True)
        return sorted(index for index in begun if self._lengths[index])

    def _admit(self, indices: list[int]) -> None:
        first = len(self._rows.token)
        prompts: dict[tuple[int, ...], int] = {}
        sources = [prompts.setdefault(self.requests[index].prompt_tokens, len(prompts)) for index in indices]
        self._prefill(list(prompts), first, self._integers(sources))
        self._rows = self._rows.extend(self._new_rows(indices))

    def _prefill(self, prompts: list[tuple[int, ...]], first: int, sources: torch.Tensor) -> None:
        """Run all prompts but their last token, right-padded, and copy prompt `sources[i]` into slot first + i."""
        width = max(len(prompt) for prompt in prompts) - 1
        if width == 0:
            return
        padded = torch.tensor([(*prompt[:-1], *[0] * (width - len(prompt) + 1)) for prompt in prompts], device=self._device)
        size = max(1, PREFILL_TOKENS // width)
        for start in range(0, len(prompts), size):
            cache = DynamicCache()
            self._model.base_model(input_ids=padded[start : start + size], past_key_values=cache, use_cache=True)
            chosen = ((sources >= start) & (sources < start + size)).nonzero()[:, 0]
            self._slots.fill(first + chosen, cache, sources[chosen] - start)

    def _new_rows(self, indices: list[int]) -> Rows:
        chosen = [self.requests[index] for index in indices]
        limits = [min(request.limit(self.sampling), self._max_length - len(request.prompt_tokens)) for request in chosen]
        uniform = np.zeros((len(chosen), self.sampling.max_tokens))
        for row, request, limit in zip(uniform, chosen, limits, strict=True):
            row[:limit] = uniforms(request.seed, limit)
        return Rows(
            request=self._integers(indices),
            token=self._integers([request.prompt_tokens[-1] for request in chosen]),
            length=self._integers([len(request.prompt_tokens) - 1 for request in chosen]),
            count=self._integers([0] * len(chosen)),
            limit=self._integers(limits),
            uniform=torch.from_numpy(uniform).to(self._device),
        )

    def _integers(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _retire(self, ended: torch.Tensor) -> list[int]:
        """Drop ended rows and return their requests; the last running rows move into the free slots."""
        gone = int(ended.sum())
        if not gone:
            return []
        left: list[int] = self._rows.request[ended].tolist()
        self._lengths |= zip(left, self._rows.count[ended].tolist(), strict=True)
        kept = len(ended) - gone
        holes = ended[:kept].nonzero()[:, 0]
        movers = (~ended[kept:]).nonzero()[:, 0] + kept
        order = torch.arange(kept, device=self._device)
        order[holes] = movers
        self._slots.move(movers, holes)
        self._rows = self._rows.pick(order)
        return left


def uniforms(seed: int, count: int) -> np.ndarray:
    """The first `count` uniform numbers [count] float64 in [0, 1) of one sample; a larger `count` begins with the same ones."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def truncate(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Logits [n, V] with -inf outside the `top_k` largest, then outside the nucleus of probability `top_p` (Holtzman et al. 2020)."""
    if top_k < 1 and top_p >= 1:
        return logits
    values, order = logits.sort(dim=-1, descending=True)
    if top_k > 0:
        values = values.masked_fill(torch.arange(values.shape[-1], device=values.device) >= top_k, -torch.inf)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    values = values.masked_fill((before >= top_p) & (before > 0), -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, values)


def draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n] int64 and their log-probs [n] float32 under softmax(logits [n, V] / temperature), truncated as `sampling` says.

    Inverse transform: the first token whose cumulative probability exceeds `uniform` [n] float64.
    """
    logprobs = truncate(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p).log_softmax(-1)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0], logprobs.gather(-1, tokens)[:, 0]
