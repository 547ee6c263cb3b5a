"""What is left of a difficulty pass, by its first prompts: as wide as it has to be, and no wider."""

import re

import numpy as np

from polaris.observe.phrases import ceiling
from polaris.recipe.estimate import remaining
from polaris.recipe.measured import Measured


def rows_of(tokens):
    return [Measured(id=str(i), passed=1, count=8, lost=0, tokens=int(t), clipped=0) for i, t in enumerate(tokens)]


def bounds(text):
    found = re.search(r"([\d.]+)([kMG]?)(?: to ([\d.]+)([kMG]?))? tokens", text)
    unit = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    low = float(found[1]) * unit[found[2]]
    return low, float(found[3]) * unit[found[4]] if found[3] else low


def test_the_range_holds_for_nineteen_of_twenty_sets():
    random, held, widths = np.random.default_rng(0), 0, []
    for _ in range(400):
        tokens = random.lognormal(8, 1, 1000)
        low, high = bounds(remaining(rows_of(tokens[:128]), 872, 1.0))
        held += low <= tokens[128:].sum() <= high
        widths.append((high - low) / tokens[128:].sum())
    assert 0.9 <= held / 400 <= 0.99
    assert np.mean(widths) < 0.6


def test_time_is_tokens_at_the_speed_so_far_and_equal_prompts_have_one_estimate():
    assert remaining(rows_of([100] * 10), 30, 50.0) == "240 responses, 3k tokens, 2m30s left"
    assert remaining(rows_of([100]), 0, 50.0) == "0 responses, 0 tokens, 0.0s left"
    assert ceiling(50_000, 8, 39_936) == "at most 400,000 responses (8 each) and 16G tokens (39,936 each)"
