"""Samples -> balanced packs: which rank trains what, in which forward pass, and the tensors of one pass.

Legend: T packed tokens, R response tokens among them, S sequences.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from math import ceil
from typing import overload

import numpy as np
import torch
from torch import Tensor

from polaris.distributed.sequence_parallel import ALONE, SequenceRanks, gather_rows
from polaris.model.attention import PackLayout, pack_layout
from polaris.types import Rollout
from polaris_kernels import TokenBatch

# Attention costs as much as the rest of a layer at about this many tokens (dense 2 * 12 h^2, attention 4 * h * length, h = 2560).
_QUADRATIC_LENGTH = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """One rollout to train on, behind its prompt, with the advantage of each of its tokens."""

    prompt_tokens: tuple[int, ...]
    rollout: Rollout
    advantage: float
    group: int = 0
    """Which of the step's groups it is of; a copy of a group is one of its own."""
    weight: float | None = None
    """Factor of its tokens' losses; None for the loss's own (`polaris.learn.aggregate`)."""
    version: int = 0
    """That of the weights which sample in this step."""
    stored: bool = False
    """Sampled by older weights than the step's other rollouts (`polaris.learn.rescue`)."""

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_tokens) + len(self.rollout.tokens)

    @property
    def stale(self) -> np.ndarray:
        """[n] bool: tokens that older weights than this step's have drawn, of a response that was carried over."""
        return np.zeros(len(self.rollout.tokens), bool) if self.stored else self.rollout.versions < self.version

    @property
    def chosen(self) -> np.ndarray:
        """[n] int64 places of the response tokens that the policy chose; the others are read, but not trained on."""
        mask = self.rollout.mask
        return np.arange(len(self.rollout.tokens)) if mask is None else np.flatnonzero(mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One forward pass, without padding. `rows` [R] are the positions that predict the response tokens, whose values `batch` holds.

    `apart` [R] bool marks the tokens whose metrics are apart, see `polaris.learn.objective.policy_objective`. Where ranks share the pack,
    `tokens`, `position_ids` and `rows` are those of this rank's part; `layout`, `batch` and `apart` are of all, and `own` are the places of
    `rows` among them.
    """

    tokens: Tensor
    position_ids: Tensor
    layout: PackLayout
    rows: Tensor
    batch: TokenBatch
    apart: Mapping[str, Tensor]
    own: slice

    @property
    def own_batch(self) -> TokenBatch:
        """What `batch` holds of `rows`."""
        if self.layout.ranks.size == 1:
            return self.batch
        return self.batch[torch.arange(self.own.start, self.own.stop, device=self.rows.device)]

    @property
    def own_apart(self) -> Mapping[str, Tensor]:
        """What `apart` marks of `rows`; without names that mark none of them."""
        if self.layout.ranks.size == 1:  # so they were built; to look again would wait for the device
            return self.apart
        own = {name: marked[self.own] for name, marked in self.apart.items()}
        return {name: marked for name, marked in own.items() if bool(marked.any())}

    def whole(self, values: Tensor) -> Tensor:
        """[R] values of all response tokens, of which each rank that shares the pack has found its part."""
        return gather_rows(values, self.own, len(self.batch.advantage), self.layout.ranks)


def karmarkar_karp(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Partition indices into `parts` sets of nearly equal cost (largest differencing method, Karmarkar and Karp 1982).

    Deterministic: ties are broken by index.
    """
    ticket = count()
    heap: list[tuple[float, int, list[tuple[float, list[int]]]]] = []
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        sets: list[tuple[float, list[int]]] = [(costs[index], [index])] + [(0.0, [])] * (parts - 1)
        heapq.heappush(heap, (-costs[index], next(ticket), sets))
    while len(heap) > 1:
        (_, _, large), (_, _, small) = heapq.heappop(heap), heapq.heappop(heap)
        merged = [(a + b, x + y) for (a, x), (b, y) in zip(large, reversed(small), strict=True)]
        merged.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], next(ticket), merged))
    return [sorted(members) for _, members in heap[0][2]] if heap else [[] for _ in range(parts)]


def cost(length: int) -> float:
    """What a sequence costs, in tokens of a short one."""
    return length * (1 + length / _QUADRATIC_LENGTH)


def plan_packs(lengths: Sequence[int], ranks: int, tokens_per_pack: int) -> list[list[list[int]]]:
    """Sample indices as [rank][pack]: cost balanced over ranks, then tokens over packs; of a rank, the most costly pack first.

    Every index is in exactly one pack. No pack exceeds `tokens_per_pack` unless it is a single sample. All ranks have the same number
    of packs (some may be empty), because each pack is a set of collectives. There the k-th packs of all ranks wait for each other: of all
    orders, this one makes the sum of their maxima least.
    """
    costs = [cost(length) for length in lengths]
    shares = karmarkar_karp(costs, ranks)
    packs = max(1, *(min(len(share), ceil(sum(lengths[i] for i in share) / tokens_per_pack)) for share in shares))
    while True:
        plan = [_split(share, lengths, packs) for share in shares]
        if all(len(pack) == 1 or sum(lengths[i] for i in pack) <= tokens_per_pack for rank in plan for pack in rank):
            return [sorted(rank, key=lambda pack: -sum(costs[i] for i in pack)) for rank in plan]
        packs += 1


def _split(share: list[int], lengths: Sequence[int], packs: int) -> list[list[int]]:
    return [[share[i] for i in part] for part in karmarkar_karp([lengths[i] for i in share], packs)]


def build_pack(samples: Sequence[TrainingSample], device: torch.device, ranks: SequenceRanks = ALONE) -> Pack:
    """Concatenate samples, whose arrays this rank holds; an empty list gives one pass over a single token that trains nothing.

    This rank's part is one of equal length for all `ranks`; to that end a sequence of a few tokens that trains nothing comes last.
    """
    assert all((sample.rollout.tokens >= 0).all() for sample in samples), "another rank holds these tokens"
    whole = [np.concatenate([np.asarray(s.prompt_tokens, dtype=np.int64), s.rollout.tokens]) for s in samples]
    lengths = [len(tokens) for tokens in whole] or [1]
    if rest := -sum(lengths) % ranks.size:
        lengths.append(rest)
    fill = sum(lengths) - sum(map(len, whole))
    starts = np.cumsum([0, *lengths[:-1]])
    chosen = [sample.chosen for sample in samples]
    responses = np.array([len(places) for places in chosen], dtype=np.int64)
    places_of = [start + len(s.prompt_tokens) - 1 + places for start, s, places in zip(starts, samples, chosen, strict=False)]

    def joined(parts: list[np.ndarray], dtype: type = np.int64) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(0, dtype=dtype), *parts])).to(device)

    part, rows = ranks.part(sum(lengths)), np.concatenate([np.zeros(0, np.int64), *places_of])
    own = slice(*np.searchsorted(rows, (part.start, part.stop)).tolist())

    def per_token(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, dtype=np.float32), responses)).to(device)

    return Pack(
        tokens=joined([*whole, np.zeros(fill, dtype=np.int64)])[part],
        position_ids=joined([np.arange(length) for length in lengths])[part],
        layout=pack_layout(lengths, device, ranks),
        rows=joined([rows[own] - part.start]),
        own=own,
        batch=TokenBatch(
            targets=joined([s.rollout.tokens[places].astype(np.int64) for s, places in zip(samples, chosen, strict=True)]),
            temperature=per_token([s.rollout.temperature for s in samples]),
            advantage=per_token([s.advantage for s in samples]),
            behaviour_logprob=joined([s.rollout.logprobs[places] for s, places in zip(samples, chosen, strict=True)], np.float32),
            weight=per_token([s.weight for s in samples if s.weight is not None]) if any(s.weight is not None for s in samples) else None,
            sequence_lengths=torch.from_numpy(responses).to(device),
        ),
        apart={name: torch.from_numpy(rows).to(device) for name, rows in _apart(samples).items() if rows.any()},
    )


def _apart(samples: Sequence[TrainingSample]) -> dict[str, np.ndarray]:
    """[R] bool: tokens of stored responses, and stale ones of others."""
    none = [np.zeros(0, bool)]
    stored = np.concatenate(none + [np.full(len(sample.chosen), sample.stored) for sample in samples])
    return {"rescue": stored, "stale": np.concatenate(none + [sample.stale[sample.chosen] for sample in samples])}


@dataclass(frozen=True, slots=True)
class Packs(Sequence[Pack]):
    """One rank's packs of `samples`: `plan` has the indices of each. A pack is built anew whenever it is asked for, so that only those in
    use are on the device.

    `values` are fields of `TokenBatch` that forward passes have found: of each pack a tensor [R], in host memory.
    """

    samples: Sequence[TrainingSample]
    plan: Sequence[Sequence[int]]
    device: torch.device
    ranks: SequenceRanks = ALONE
    values: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, index: int) -> Pack: ...

    @overload
    def __getitem__(self, index: slice) -> Packs: ...

    def __getitem__(self, index: int | slice) -> Pack | Packs:
        if isinstance(index, slice):
            return replace(self, plan=self.plan[index], values={name: found[index] for name, found in self.values.items()})
        pack = build_pack([self.samples[i] for i in self.plan[index]], self.device, self.ranks)
        found = {name: tensors[index].to(self.device) for name, tensors in self.values.items()}
        return replace(pack, batch=replace(pack.batch, **found))

    def halved(self) -> Packs | None:
        """Every pack in two of about as many tokens; None where each is a single sequence."""
        lengths = [sample.length for sample in self.samples]
        parts = [list(filter(None, _split(list(members), lengths, 2))) or [[]] for members in self.plan]
        if all(len(of_pack) == 1 for of_pack in parts):
            return None
        values = {name: list(chain.from_iterable(map(self._divided, self.plan, parts, found))) for name, found in self.values.items()}
        return replace(self, plan=list(chain.from_iterable(parts)), values=values)

    def _divided(self, members: Sequence[int], parts: Sequence[Sequence[int]], values: Tensor) -> Iterator[Tensor]:
        """The values [R] of a pack, for the parts of its members."""
        of = dict(zip(members, values.split([len(self.samples[i].chosen) for i in members]), strict=True))
        return (torch.cat([values[:0], *(of[i] for i in part)]) for part in parts)

    def with_values(self, name: str, found: Sequence[Tensor]) -> Packs:
        """The same with another field of their batches."""
        return replace(self, values={**self.values, name: found})
