"""What a temperature probe costs, in words: before it draws, and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polaris.observe.phrases import count, duration
from polaris.recipe.temperature_reading import Reading


def before(most: int, limit: int, there: Iterable[Reading], difficulty: Mapping[str, Any] | None) -> str:
    """At most `most` responses of at most `limit` tokens, less those that are `there` already.

    `difficulty` is the result of a difficulty pass: its mean length and tokens per second give an estimate.
    """
    left = most - sum(reading.responses for reading in there)
    text = f"temperature probe: at most {left:,} responses of at most {limit:,} tokens, {count(left * limit)} tokens"
    mean = difficulty and difficulty.get("response_length_mean")
    if difficulty and mean:
        tokens, speed = left * mean, difficulty["tokens"] / difficulty["seconds"]
        text += (
            f"; {count(tokens)} and {duration(tokens / speed)} at the difficulty pass's {mean:,.0f} tokens a response and {count(speed)}/s"
        )
    return f"{text}; what cannot change the choice is not drawn"


def after(most: int, readings: Iterable[Reading], seconds: float) -> str:
    """What was drawn of at most `most` responses; `seconds` are those of this process."""
    readings = list(readings)
    responses, tokens = sum(reading.responses for reading in readings), sum(reading.sampled_tokens for reading in readings)
    saved = f" of at most {most:,}, {max(0, most - responses) / most:.0%} saved" if most > responses else ""
    return f"temperature probe: {responses:,} responses{saved}, {count(tokens)} tokens, {duration(seconds)}"
