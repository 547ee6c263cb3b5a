"""Which groups of a draw are complete, and when a step has enough of them: counted in the store that all ranks share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from polaris.distributed.travel import packed, unpacked
from polaris.types import Group, Prompt, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Enough:
    """When a step has drawn enough: `groups` that teach are complete, and all of the prompts in `due`.

    `teaches` says whether a complete group has a gradient; `before` are the responses that a prompt brought along from an earlier step.
    """

    groups: int
    teaches: Callable[[Group], bool]
    due: frozenset[str] = frozenset()
    before: Mapping[str, Sequence[ScoredRollout]] = field(default_factory=dict)


class Board:
    """Counts graded samples of each prompt over all engines. `outstanding` are the samples that each prompt still needs.

    Where there is `Enough` to ask for, verdicts travel through the store, since the samples of a group come from several engines; what a
    prompt's samples say is not needed for it and stays where it is.
    """

    def __init__(
        self, outstanding: Mapping[str, int], prompts: Mapping[str, Prompt], store: dist.Store, name: str, enough: Enough | None = None
    ) -> None:
        self._outstanding, self._prompts, self._enough = outstanding, prompts, enough
        self._store: Any = store
        self._name = name
        self._places = {prompt_id: place for place, prompt_id in enumerate(outstanding)}
        self.groups = len(outstanding)
        self._left = Counter(outstanding)
        self._complete_before = [prompt_id for prompt_id, number in outstanding.items() if not number]
        self._wanted = self._still_wanted() if enough else (0, 0)

    @property
    def keys(self) -> list[str]:
        """The keys that it leaves in the store."""
        names = [*("complete", "teach", "due"), *(f"{kind}/{place}" for kind in ("count", "verdicts") for place in self._places.values())]
        return [self._key(name) for name in names]

    @property
    def complete(self) -> int:
        """Complete groups."""
        return len(self._complete_before) + self._add("complete", 0)

    @property
    def has_enough(self) -> bool:
        """Whether the step may be cut off. The answer never goes back to false."""
        teach, due = self._wanted
        return self._enough is not None and self._add("teach", 0) >= teach and self._add("due", 0) >= due

    @property
    def could_have_enough(self) -> bool:
        """Whether this rank alone has `ended` so many groups that there could be enough once they are graded."""
        return self._enough is not None and sum(not left for left in self._left.values()) >= self._enough.groups

    def ended(self, rollout: Rollout) -> None:
        """A sample of this rank has ended, and will be graded."""
        self._left[rollout.prompt_id] -= 1

    def add(self, scored: ScoredRollout) -> None:
        """One more graded sample; called from any thread of any rank, once for each sample."""
        prompt_id = scored.rollout.prompt_id
        place = self._places[prompt_id]
        if self._enough is not None:
            self._store.append(self._key(f"verdicts/{place}"), packed(scored))
        if self._add(f"count/{place}", 1) < self._outstanding[prompt_id]:
            return
        if self._enough is not None:
            new = unpacked(self._store.get(self._key(f"verdicts/{place}")))
            self._add("teach", int(self._teaches(prompt_id, new)))
            self._add("due", int(prompt_id in self._enough.due))
        self._add("complete", 1)

    def _still_wanted(self) -> tuple[int, int]:
        """Groups that teach, and prompts that are due, beside those that were complete before."""
        assert self._enough is not None
        before = sum(self._teaches(prompt_id, []) for prompt_id in self._complete_before)
        return self._enough.groups - before, len(self._enough.due.difference(self._complete_before))

    def _teaches(self, prompt_id: str, new: Sequence[ScoredRollout]) -> bool:
        assert self._enough is not None
        scored = sorted([*self._enough.before.get(prompt_id, ()), *new], key=lambda one: one.rollout.sample)
        return self._enough.teaches(Group(prompt=self._prompts[prompt_id], rollouts=tuple(scored)))

    def _add(self, name: str, number: int) -> int:
        return int(self._store.add(self._key(name), number))

    def _key(self, name: str) -> str:
        return f"{self._name}/{name}"
