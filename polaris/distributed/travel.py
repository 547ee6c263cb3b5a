"""Rollouts between ranks: graded ones to rank 0, which records and stores them, and from there to each rank those that it trains on.

Arrays and texts travel once, as flat buffers, to where they are needed; all ranks know everything else (`Rollout.without_arrays`).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist

from polaris.distributed.mesh import World
from polaris.types import Rollout, ScoredRollout

_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class _Known:
    """What every rank hears of a scored rollout of `length` tokens, whose text has `text` bytes: `scored` is all but text and arrays.

    `versions` are runs of equal ones, as (version, tokens); `mask` are its bits.
    """

    scored: ScoredRollout
    length: int
    text: int
    versions: list[tuple[int, int]]
    mask: np.ndarray | None

    def whole(self, tokens: np.ndarray, logprobs: np.ndarray, text: str) -> ScoredRollout:
        """With what only rank 0 hears."""
        values, lengths = np.array(self.versions, np.int32).T
        mask = None if self.mask is None else np.unpackbits(self.mask, count=self.length).astype(bool)
        rollout = replace(self.scored.rollout, tokens=tokens, logprobs=logprobs, versions=np.repeat(values, lengths), mask=mask)
        return replace(self.scored, rollout=rollout, text=text)

    def outline(self) -> ScoredRollout:
        """Without it."""
        unheard = np.broadcast_to(_NONE.dtype.type(), self.length)
        scored = self.whole(unheard, unheard, "")
        return replace(scored, rollout=scored.rollout.without_arrays())


def gather_scored(mine: Sequence[ScoredRollout], world: World) -> list[ScoredRollout]:
    """The scored rollouts of all ranks, in rank order, on every rank. Rank 0 alone has texts, tokens and log-probs: elsewhere texts are
    empty, and rollouts `without_arrays`."""
    if world.size == 1:
        return list(mine)
    texts = [scored.text.encode("utf-8", "surrogatepass") for scored in mine]
    parts: list[list[_Known]] = [[]] * world.size
    dist.all_gather_object(parts, [_known(scored, text) for scored, text in zip(mine, texts, strict=True)])
    sent = [] if world.is_main else list(zip([scored.rollout for scored in mine], texts, strict=True))  # rank 0 has its own
    lengths = [[one.length for one in part] if world.is_main and rank else [] for rank, part in enumerate(parts)]
    sizes = [[one.text for one in part] if world.is_main and rank else [] for rank, part in enumerate(parts)]
    tokens = _to_main([rollout.tokens for rollout, _ in sent], lengths, np.int32)
    logprobs = _to_main([rollout.logprobs for rollout, _ in sent], lengths, np.float32)
    letters = _to_main([np.frombuffer(text, np.uint8) for _, text in sent], sizes, np.uint8)
    if not world.is_main:
        return [known.outline() for part in parts for known in part]
    found = zip((known for part in parts[1:] for known in part), tokens, logprobs, letters, strict=True)
    return [*mine, *(known.whole(t, p, text.tobytes().decode("utf-8", "surrogatepass")) for known, t, p, text in found)]


def packed(scored: ScoredRollout) -> bytes:
    """What every rank may know of a scored rollout, for the store that they share."""
    data = pickle.dumps(_known(scored, b""))
    return len(data).to_bytes(4, "little") + data


def unpacked(data: bytes) -> list[ScoredRollout]:
    """The rollouts of several `packed` ones, one after the other, without texts and arrays."""
    found: list[ScoredRollout] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        found.append(pickle.loads(data[4:end]).outline())
        data = data[end:]
    return found


def deal(shares: Sequence[Sequence[Rollout]], world: World) -> list[Rollout]:
    """This rank's share, with the arrays that rank 0 holds of all.

    `shares[r]` is what rank r is to have, the same on every rank. A rollout that a rank is to have several times is one object, and
    travels once.
    """
    if world.size == 1:
        return list(shares[0])
    if world.is_main:
        sent = [[], *(_once(share) for share in shares[1:])]
        for kind, dtype in (("tokens", np.int32), ("logprobs", np.float32)):
            _exchange([[getattr(rollout, kind) for rollout in share] for share in sent], [0] * world.size, dtype)
        return list(shares[0])
    wanted = _once(shares[world.rank])
    lengths = [len(rollout.tokens) for rollout in wanted]
    nothing: list[list[np.ndarray]] = [[]] * world.size
    expected = [sum(lengths), *[0] * (world.size - 1)]
    tokens = _cut(_exchange(nothing, expected, np.int32), lengths)
    logprobs = _cut(_exchange(nothing, expected, np.float32), lengths)
    found = {
        id(rollout): replace(rollout, tokens=t, logprobs=p, versions=np.array(rollout.versions))
        for rollout, t, p in zip(wanted, tokens, logprobs, strict=True)
    }
    return [found[id(rollout)] for rollout in shares[world.rank]]


def _known(scored: ScoredRollout, text: bytes) -> _Known:
    rollout = scored.rollout
    starts = np.flatnonzero(np.diff(rollout.versions, prepend=rollout.versions[0] - 1))
    lengths = np.diff(starts, append=len(rollout.versions))
    return _Known(
        scored=replace(scored, text="", rollout=replace(rollout, tokens=_NONE, logprobs=_NONE, versions=_NONE, mask=None)),
        length=len(rollout.tokens),
        text=len(text),
        versions=list(zip(rollout.versions[starts].tolist(), lengths.tolist(), strict=True)),
        mask=None if rollout.mask is None else np.packbits(rollout.mask),
    )


def _once(share: Sequence[Rollout]) -> list[Rollout]:
    return list({id(rollout): rollout for rollout in share}.values())


def _to_main(arrays: list[np.ndarray], lengths: Sequence[Sequence[int]], dtype: type) -> list[np.ndarray]:
    """The arrays of all ranks on rank 0, where `lengths[r]` are those of rank r's; nothing elsewhere."""
    found = _exchange([arrays, *[[] for _ in lengths[1:]]], [sum(of_rank) for of_rank in lengths], dtype)
    return _cut(found, [length for of_rank in lengths for length in of_rank])


def _exchange(arrays: Sequence[Sequence[np.ndarray]], expected: Sequence[int], dtype: type) -> np.ndarray:
    """Send `arrays[r]` to rank r; returns all `expected[r]` numbers that each rank r sends here, one after the other."""
    flat = np.concatenate([np.zeros(0, dtype), *(array.astype(dtype, copy=False) for of_rank in arrays for array in of_rank)])
    found: np.ndarray = np.empty(sum(expected), dtype)
    sizes = [sum(map(len, of_rank)) for of_rank in arrays]
    dist.all_to_all_single(torch.from_numpy(found), torch.from_numpy(flat), list(expected), sizes)
    return found


def _cut(flat: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    ends = list(accumulate(lengths))
    return [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
