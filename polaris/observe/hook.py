"""What a hook may hear of a run. Trackers are hooks of ours; a user's own are named in `run.hooks` (`polaris.run.hooks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polaris.types import Group

if TYPE_CHECKING:
    from polaris.config.schema import RunConfig

Numbers = Mapping[str, float]


class Hook:
    """Code beside the loop, on rank 0, which has the groups of all ranks. A hook has the methods that it wants; none is required.

    It need not inherit from this class. Records and groups are for reading.
    """

    def on_start(self, config: RunConfig, folder: Path, next_step: int) -> None:
        """The run begins, or goes on, with step `next_step`; `folder` is the run's. A resumed run may repeat steps that were heard of."""

    def on_step(self, record: Mapping[str, Any], groups: Sequence[Group]) -> Numbers | None:
        """A step is done. `groups` are what the policy has drawn in it; what is returned goes into its record, as `hook/<name>`."""

    def on_evaluate(self, record: Mapping[str, Any]) -> Numbers | None:
        """The held-out prompts were evaluated; what is returned goes into the record, as `hook/<name>`."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """The checkpoint of `step` is complete, in `folder`; checkpoint.keep decides for how long. It is heard between steps."""

    def on_stop(self, why: str) -> None:
        """The loop has ended: "done" after the last step, "stopped" on request, or what went wrong. A killed process says nothing."""


DONE, STOPPED = "done", "stopped"
METHODS = tuple(name for name in vars(Hook) if name.startswith("on_"))
