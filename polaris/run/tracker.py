"""The temperature that follows the policy over the steps of a stage (`temperature = "track"`), as a checkpoint keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from polaris.algorithm.diversity import distinct_tokens, of_pairs
from polaris.algorithm.track import Seen, Track, follow
from polaris.distributed.mesh import World
from polaris.types import Group, Rollout

FILE = "temperature.json"


class TemperatureTracker:
    """`track` is that of the present stage; None where the stage has one temperature."""

    def __init__(self) -> None:
        self.track: Track | None = None

    def add(self, groups: Sequence[Group], diversity: np.ndarray) -> str:
        """Follow a finished step with the `diversity` [P] of its P groups; returns what moved the temperature, in words, or "".

        Verdicts that were lost are left out of the accuracy.
        """
        if self.track is None:
            return ""
        passes = [group.passes for group in groups]
        accuracy = np.array([passed / graded for passed, graded in passes if graded])
        before, self.track = self.track, follow(self.track, diversity, accuracy)
        if self.track.temperature == before.temperature:
            return ""
        return f"temperature {before.temperature:g} -> {self.track.temperature:g}: {_in_words(self.track)}"

    def save(self, folder: Path) -> None:
        """Write `temperature.json`."""
        (folder / FILE).write_text(json.dumps(self.track and asdict(self.track), indent=2) + "\n")

    def load(self, folder: Path) -> None:
        """Replace the track by the one that `save` wrote; checkpoints of older versions have none."""
        path = folder / FILE
        found = json.loads(path.read_text()) if path.is_file() else None
        self.track = None if found is None else _track(found)


def diversity_of(groups: Sequence[Group], world: World) -> np.ndarray:
    """Share [P] of distinct 4-grams of tokens in two responses of each group (`polaris.algorithm.diversity`), the same on every rank."""
    mine = [of_pairs([_chosen(scored.rollout) for scored in group.rollouts], distinct_tokens) for group in groups] if world.is_main else []
    return np.array(world.gather(mine))


def _chosen(rollout: Rollout) -> np.ndarray:
    """The tokens that the policy chose."""
    return rollout.tokens if rollout.mask is None else rollout.tokens[rollout.mask]


def _in_words(track: Track) -> str:
    held, now = (track.held.diversity if track.held else 0.0), track.before or 0.0
    if track.why == "accuracy collapses":
        return f"accuracy fell far below its best of {track.best:.0%} in this stage, so it goes back, and no hotter again"
    return f"responses are {track.why} ({now:.3f}) than when the stage began ({held:.3f})"


def _track(found: dict[str, Any]) -> Track:
    held = found.pop("held")
    return Track(
        **{**found, "window": tuple(Seen(**seen) for seen in found["window"]), "effects": tuple(found["effects"])},
        held=None if held is None else Seen(**held),
    )
