"""Pass rates that a prompt set brings along, as POLARIS' own does ("5/8")."""

from __future__ import annotations

import re
from typing import Any

from polaris.config.recipe import DifficultyConfig
from polaris.errors import Refused


def read_pass_rate(row: dict[str, Any], source: str, config: DifficultyConfig | None) -> tuple[int, int] | None:
    """Correct responses, and all, from `config.column` of the row: text such as "5/8", or a share of `config.samples_per_prompt` responses.

    None where no column is named.

    Raises:
        ValueError: naming `source`, for a row without the column or with another value in it.
    """
    if config is None or not config.column:
        return None
    if config.column not in row:
        raise Refused(f"{source} has the columns {', '.join(map(str, row))}; difficulty.column = {config.column!r} is none of them")
    value, samples = row[config.column], config.samples_per_prompt
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", value)):
        passed, count = int(found[1]), int(found[2])
        if passed <= count > 0:
            return passed, count
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        passed = round(value * samples)
        if abs(value - passed / samples) < 0.0051:  # rates are written with two digits or more
            return passed, samples
    raise Refused(
        f"{source} has no pass rate in {config.column!r}, but {value!r}; write correct responses of all, such as 5/8, or a share of "
        f"difficulty.samples_per_prompt = {samples}, or remove difficulty.column and the pass is run"
    )
