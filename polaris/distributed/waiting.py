"""How long ranks wait in an update for the slowest of them.

Ranks meet in collectives for every decoder layer, so that all of them end an update together, however long each has worked. What tells them
apart is the time between two meetings: that of the layers' own forward passes, which is measured on each rank. Of what is recomputed
nothing is measured: it ends in the middle of a layer, once all is there that the backward needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from polaris.distributed.mesh import World


class LayerTimes:
    """Seconds of the layers' forward passes on this rank, while it is `watched`: one number for each pass over the layers. All ranks have
    equally many, since each layer's pass is a collective. A rank that is alone has none, nor have those that share packs:
    they wait for each other inside of the layers."""

    def __init__(self, layers: Sequence[nn.Module], world: World) -> None:
        self._layers = layers if world.size > 1 and world.sequence.size == 1 else ()
        self._cuda = world.device.type == "cuda"
        self._marks: list[list[tuple[float | torch.cuda.Event, float | torch.cuda.Event]]] = []
        self._begun: float | torch.cuda.Event = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure in the block: after a layer's weights are gathered, and before they are freed."""
        handles = []
        for layer in self._layers:
            handles.append(layer.register_forward_pre_hook(self._before))
            handles.append(layer.register_forward_hook(self._after, prepend=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def seconds(self) -> list[float]:
        """The measured times; waits for the device."""
        if self._cuda and self._marks:
            torch.cuda.synchronize()
        return [sum(_between(*both) for both in marks) for marks in self._marks]

    @torch.compiler.disable
    def _before(self, layer: nn.Module, args: object) -> None:
        self._begun = self._now()

    @torch.compiler.disable
    def _after(self, layer: nn.Module, args: object, output: object) -> None:
        if layer is self._layers[0]:
            self._marks.append([])
        self._marks[-1].append((self._begun, self._now()))

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(begun: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(begun, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        return begun.elapsed_time(ended) / 1000
    assert isinstance(begun, float)
    assert isinstance(ended, float)
    return ended - begun


def share_waited(seconds: Sequence[Sequence[float]]) -> float:
    """The share of the time that the mean rank waits for the slowest, by the times [ranks][passes] of `LayerTimes`.

    Ranks wait for each other in every pass, so the slowest of a pass need not be that of the next one.
    Example: two ranks whose two passes take [3, 1] and [1, 3] seconds: 6 seconds pass, of which each rank works for 4.
    """
    passes = np.array(seconds, np.float64)
    slowest = passes.max(axis=0).sum()
    return float(1 - passes.mean(axis=0).sum() / slowest) if slowest else 0.0
