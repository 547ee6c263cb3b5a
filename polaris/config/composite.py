"""The option `datasets` of `reasoning_gym:composite`: several tasks in one prompt set, each with its share of the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from polaris.config.names import nearest, shown
from polaris.doors import GYM
from polaris.errors import Refused

COMPOSITE = "composite"
_OF_SET = ("size", "seed", "examples", "datasets")
_OF_TASK = ("name", "weight", "config")
_EXAMPLE = '{ name = "gcd", weight = 2.0, config = { levels = [0, 1] } }'


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One task of a composite. `config` holds its own options, `levels` among them; `key` names that table in messages."""

    name: str
    weight: float
    config: Mapping[str, Any]
    key: str


def parts(options: Mapping[str, Any], key: str) -> list[Part]:
    """The tasks that the options of a composite name, in their order. Raises `Refused`, naming `key`, for what says no such list."""
    unknown = next((name for name in options if name not in _OF_SET), None)
    if unknown is not None:
        raise Refused(
            f"{key}.{unknown} is unknown to {GYM}{COMPOSITE}, which has size, seed and datasets; what belongs to a task stands in its "
            f"table, as in {key}.datasets[0].config.{unknown}"
        )
    if options.get("examples", 0) != 0:
        raise Refused(
            f"{key}.examples: worked examples are those of one task, and {GYM}{COMPOSITE} has several; remove it, or write a table of "
            "[[data.sets]] for each task, with examples of its own"
        )
    given = options.get("datasets")
    if not isinstance(given, list) or not given:
        raise Refused(f"{GYM}{COMPOSITE} needs {key}.datasets, a list with a table for each task; write datasets = [{_EXAMPLE}]")
    found = [_part(one, f"{key}.datasets[{index}]") for index, one in enumerate(given)]
    names = [part.name for part in found]
    if twice := [index for index, name in enumerate(names) if name in names[:index]]:
        raise Refused(
            f"{key}.datasets[{twice[0]}].name = {names[twice[0]]!r} is there twice; give a task one table (levels = [0, 1] in its config "
            "for several levels), or a table of [[data.sets]] for each"
        )
    return found


def shares(named: Sequence[Part], size: int, key: str) -> list[int]:
    """Rows of each task, by weight: the whole part of its quota, and one more for the largest remainders, the first of equal ones.

    Raises:
        Refused: naming `key`, where a task would have no row.
    """
    total = sum(Fraction(part.weight) for part in named)
    quotas = [size * Fraction(part.weight) / total for part in named]
    rows = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(named)), key=lambda place: rows[place] - quotas[place])
    for place in by_remainder[: size - sum(rows)]:
        rows[place] += 1
    if 0 in rows:
        idle = rows.index(0)
        raise Refused(
            f"{key}.datasets[{idle}].weight = {named[idle].weight:g} leaves {named[idle].name} none of {key}.size = {size} rows; raise one "
            "of the two, or remove the task"
        )
    return rows


def _part(value: Any, key: str) -> Part:
    if not isinstance(value, Mapping):
        raise Refused(f"{key} = {shown(value)} is no table; write {_EXAMPLE}")
    unknown = next((name for name in value if name not in _OF_TASK), None)
    if unknown is not None:
        close = nearest(unknown, _OF_TASK)
        meant = f"did you mean {close!r}?" if close else f"if it is an option of the task, write {key}.config.{unknown}"
        raise Refused(f"{key}.{unknown} is unknown; {meant}")
    name, weight, config = value.get("name"), value.get("weight", 1.0), value.get("config", {})
    if not isinstance(name, str) or not name:
        raise Refused(f"{key}.name = {shown(name)} must be the name of a task; write {_EXAMPLE}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise Refused(f"{key}.weight = {shown(weight)} must be a finite number above 0: the task's share of the rows")
    if not isinstance(config, Mapping):
        raise Refused(f"{key}.config = {shown(config)} must be a table of the task's options; write {_EXAMPLE}")
    ours = next((name for name in config if name in ("size", "seed", "examples")), None)
    if ours is not None:
        raise Refused(f"{key}.config.{ours} is an option of the whole set, and no task's; remove it here")
    return Part(name=name, weight=weight, config=config, key=f"{key}.config")
