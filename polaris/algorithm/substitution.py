"""Places of groups without a gradient, given to copies of groups that have one (POLARIS, section 4)."""

from __future__ import annotations

import numpy as np


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
