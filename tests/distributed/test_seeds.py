"""The generators of a rank."""

import random

import numpy as np
import torch

from polaris.distributed.seeds import random_state, restore_random_state, seed_everything


def draws():
    return random.random(), np.random.normal(), float(torch.randn(1))


def test_what_was_drawn_after_a_state_is_drawn_again():
    seed_everything(5, deterministic=False)
    first = draws()  # numpy draws normals in pairs, so that one of them is part of the state
    state = random_state()
    following = [draws() for _ in range(3)]
    seed_everything(2**32 + 5, deterministic=False)
    assert draws()[1] == first[1]
    restore_random_state(state)
    assert [draws() for _ in range(3)] == following
