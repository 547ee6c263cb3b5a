"""Which sets a configuration names, and how the rows of each are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polaris.config.data import DataConfig, Option, SetConfig
from polaris.config.schema import RunConfig
from polaris.data.named_sets import NAMED_SETS, spelled
from polaris.doors import is_gym, is_own, short
from polaris.errors import Refused
from polaris.reward.answer_pattern import pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a set is read; by default from the usual columns, with the whole answer. `key` is the configuration's, for messages."""

    key: str = "data"
    subset: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    answer: str = "whole"
    system_prompt: str = ""

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """Which part of an answer is the gold; None for all of it. Raises `Refused` for a pattern that is none."""
        return None if self.answer == "whole" else pattern(self.answer, f"{self.key}.answer")


PLAIN = Reading()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """One prompt set of a configuration. `name` is "" where it is the only one."""

    path: str
    split: str
    reading: Reading
    name: str = ""
    weight: float | None = None


def training_sources(data: DataConfig) -> tuple[PromptSource, ...]:
    """The sets that training draws from. Raises `Refused` where two have one name."""
    if not data.sets:
        reading = Reading(
            subset=data.subset, options=data.options, columns=data.columns, answer=data.answer, system_prompt=data.system_prompt
        )
        return (PromptSource(path=data.path, split=data.split, reading=reading),)
    names = [one.name or _name(one.path) for one in data.sets] if len(data.sets) > 1 else [""]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Refused(f"two tables of data.sets have the name {twice[0]!r}; give one of them another with `name`")
    return tuple(_of_table(data, index, one, name) for index, (one, name) in enumerate(zip(data.sets, names, strict=True)))


def held_out_source(config: RunConfig) -> PromptSource | None:
    """The set of `eval.path`, which is asked and read as `[data]` says unless `[eval]` says otherwise; None without one."""
    data, held_out = config.data, config.eval
    if held_out.path is None:
        return None
    reading = Reading(
        key="eval",
        subset=held_out.subset,
        options=held_out.options,
        system_prompt=data.system_prompt,
        **_form(held_out.path, held_out.columns, held_out.answer, data),
    )
    return PromptSource(path=held_out.path, split=held_out.split, reading=reading)


def in_words(data: DataConfig) -> str:
    """The places of the training prompts, for messages."""
    return ", ".join(short(source.path) for source in training_sources(data))


def _form(path: str, columns: Mapping[str, str] | None, answer: str | None, data: DataConfig) -> dict[str, Any]:
    """Columns and answer of a set: its own, else those of `[data]`, which a set of the paper or of reasoning-gym does not have."""
    others, whole = (PLAIN.columns, PLAIN.answer) if spelled(path) in NAMED_SETS or is_gym(path) else (data.columns, data.answer)
    return {"columns": others if columns is None else columns, "answer": answer or whole}


def _of_table(data: DataConfig, index: int, one: SetConfig, name: str) -> PromptSource:
    reading = Reading(
        key=f"data.sets.{index}",
        subset=one.subset,
        options=one.options,
        system_prompt=one.system_prompt or data.system_prompt,
        **_form(one.path, one.columns, one.answer, data),
    )
    return PromptSource(path=one.path, split=one.split or data.split, reading=reading, name=name, weight=one.weight)


def _name(path: str) -> str:
    """`gsm8k` of `openai/gsm8k@main`, `train` of `sets/train.jsonl`, `prompts` of `mine:prompts`."""
    if is_own(path) or is_gym(path) or path.startswith("embedded:"):
        return path.rpartition(":")[2]
    last = path.rstrip("/").rpartition("/")[2].partition("@")[0]
    return Path(last).stem if Path(last).suffix else last
