"""Kinds of groups, and copies in the places of those without a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polaris.algorithm.advantages import rewards_vary


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKinds:
    """Boolean arrays [P]. A group is `all_wrong`, `all_right`, `too_few`, or some of its responses are solved and some are not.

    Where rewards say only what is solved, the last are the `informative` ones. Where length or format earn something too, a group in
    which nothing is solved may be informative as well: its responses are compared, and it can be rescued all the same.
    """

    informative: np.ndarray
    """Two valid samples with different rewards: the group has a gradient."""
    all_wrong: np.ndarray
    """At least two valid samples, none solved."""
    all_right: np.ndarray
    """At least two valid samples, all solved."""
    too_few: np.ndarray
    """Fewer than two valid samples: nothing to compare with."""


def classify_groups(rewards: np.ndarray, solved: np.ndarray, valid: np.ndarray) -> GroupKinds:
    """Kinds of P groups from `rewards` [P, G] float64, `solved` [P, G] bool and `valid` [P, G] bool."""
    too_few = valid.sum(axis=1) < 2
    return GroupKinds(
        informative=rewards_vary(rewards, valid),
        all_wrong=~too_few & ~(solved & valid).any(axis=1),
        all_right=~too_few & (solved | ~valid).all(axis=1),
        too_few=too_few,
    )


def is_scarce(informative: int, places: int, share: float) -> bool:
    """Whether `informative` groups fill less than `share` of a step's `places`."""
    return informative / places < share


def substitute(informative: np.ndarray, places: int, seed: int) -> list[int]:
    """The groups to train on, as indices into `informative` [P] bool, in their order; an index that stands there again is a copy.

    Every informative group is there once, in its own place. If they fill fewer than `places`, copies are added until they do, each
    in the place of a group without a gradient, the first ones first. Copies go round the informative groups in an order that is a
    function of `seed`, so that no group has more than one copy more than another. P must not be below `places`; without an
    informative group there is nothing to copy and the result is empty.
    """
    assert len(informative) >= places
    chosen = np.flatnonzero(informative)
    if not len(chosen):
        return []
    # numpy promises the raw stream of a bit generator across its versions, but not Generator.permutation.
    order = chosen[np.argsort(np.random.Philox(key=seed).random_raw(len(chosen)), kind="stable")]
    copies, left_out = np.split(np.flatnonzero(~informative), [max(0, places - len(chosen))])
    trained = np.arange(len(informative))
    trained[copies] = np.resize(order, len(copies))
    return np.delete(trained, left_out).tolist()
