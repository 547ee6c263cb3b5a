"""Metrics of an update: the total of a pack that each comes from; their means and maxima over packs and ranks, summed exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Metric:
    """The mean of what `total` sums up over what `count` counts; the maximum `total` where there is no count.

    Totals are those of `polaris_kernels.policy_loss.totals` and what `Statistics.add_totals` names.
    """

    total: str
    count: str | None


def _mismatch(**metrics: Metric) -> dict[str, Metric]:
    """Distance of the engine that sampled from the trainer: of fresh tokens, of stored successes that rescue put in, and of tokens that
    older weights sampled in responses that were carried over."""
    return {f"{group}/{name}": metric for group in ("mismatch", "rescue", "stale") for name, metric in metrics.items()}


METRICS = {
    "policy/clip_low": Metric("clip_low", "tokens"),
    "policy/clip_high": Metric("clip_high", "tokens"),
    "policy/clip_dual": Metric("clip_dual", "tokens"),
    "policy/entropy": Metric("entropy", "tokens"),
    "policy/kl_reference_k1": Metric("kl_reference_k1", "tokens"),
    "policy/kl_reference_k3": Metric("kl_reference_k3", "tokens"),
    **_mismatch(kl_k1=Metric("kl_k1", "finite"), kl_k3=Metric("kl_k3", "finite"), logprob_gap_mean=Metric("gap", "finite")),
    **_mismatch(
        masked_fraction=Metric("masked", "tokens"),
        truncated_fraction=Metric("truncated", "tokens"),
        nonfinite_fraction=Metric("nonfinite", "tokens"),
    ),
    "policy/ratio_max": Metric("ratio_max", None),
    **_mismatch(logprob_gap_max=Metric("gap_max", None)),
}
MEANS = tuple(name for name, metric in METRICS.items() if metric.count)
MAXIMA = tuple(name for name, metric in METRICS.items() if not metric.count)


class Statistics:
    """Accumulates `METRICS`. The names are fixed, so a rank that saw no pack joins the collectives all the same.

    Values may be tensors on any device; they are not read before `compute` or `all_reduce`.
    """

    def __init__(self) -> None:
        self._sums = {name: torch.zeros(2, dtype=torch.float64) for name in MEANS}
        self._maxima = {name: torch.tensor(-math.inf, dtype=torch.float64) for name in MAXIMA}

    def add_totals(self, group: str, totals: dict[str, Tensor]) -> None:
        """Add a pack's totals to the metrics of that group; "finite" counts the tokens whose engine log-prob is a number.

        A total that the pack does not have (of a reference policy) adds nothing.
        """
        totals = totals | {"finite": totals["tokens"] - totals["nonfinite"]}
        for name, metric in METRICS.items():
            if not name.startswith(f"{group}/") or metric.total not in totals:
                continue
            if metric.count:
                self.add_mean(name, totals[metric.total], totals[metric.count])
            else:
                self.add_max(name, totals[metric.total])

    def add_mean(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add `count` values that sum to `total`."""
        self._add(name, torch.stack([_double(total), _double(count).to(_double(total).device)]))

    def add_max(self, name: str, value: Tensor | float) -> None:
        """Add one value; NaN wins over every number."""
        added = _double(value)
        self._maxima[name] = torch.maximum(self._maxima[name].to(added.device), added)

    def merge(self, other: Statistics) -> None:
        """Add everything that `other` has seen."""
        for name, sums in other._sums.items():
            self._add(name, sums)
        for name, value in other._maxima.items():
            self.add_max(name, value)

    def all_reduce(self, device: torch.device, groups: Sequence[dist.ProcessGroup | None] = (None,)) -> None:
        """Merge over all ranks of the groups, in one SUM and one MAX collective of each on `device`; nothing if torch.distributed is not in
        use."""
        if not dist.is_initialized():
            return
        sums = torch.stack([self._sums[name].to(device) for name in MEANS])
        maxima = torch.stack([self._maxima[name].to(device) for name in MAXIMA])
        for group in groups:
            dist.all_reduce(sums, op=dist.ReduceOp.SUM, group=group)
            dist.all_reduce(maxima, op=dist.ReduceOp.MAX, group=group)
        self._sums = dict(zip(MEANS, sums, strict=True))
        self._maxima = dict(zip(MAXIMA, maxima, strict=True))

    def compute(self) -> dict[str, float]:
        """Means and maxima by name; names to which nothing was added are left out."""
        sums = {name: value.tolist() for name, value in self._sums.items()}
        maxima = {name: value.item() for name, value in self._maxima.items()}
        means = {name: total / count for name, (total, count) in sums.items() if count}
        return means | {name: value for name, value in maxima.items() if value != -math.inf}

    def _add(self, name: str, sums: Tensor) -> None:
        self._sums[name] = self._sums[name].to(sums.device) + sums


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()
