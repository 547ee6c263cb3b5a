"""The prompts that training draws from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from polaris.config.bounds import at_least, finite, positive
from polaris.config.own_code import DOOR, Option
from polaris.errors import Refused

COLUMNS = ("prompt", "answer", "id", "system")
"""Our names of the columns that are read."""
_PATH = "POLARIS-Project/Polaris-Dataset-53K"


def check_columns(section: str, columns: Mapping[str, str] | None) -> None:
    """Raise `Refused` for a column that is not among `COLUMNS`."""
    unknown = sorted((columns or {}).keys() - set(COLUMNS))
    if unknown:
        raise Refused(
            f"{section}.columns.{unknown[0]} is unknown; write our name ({', '.join(COLUMNS)}) = the set's, as in "
            'columns = { prompt = "question" }'
        )


def given_columns(section: str, words: Iterable[str]) -> dict[str, str]:
    """The columns that options of the command line give as OURS=THEIRS. Raises `Refused` as `check_columns`."""
    columns = dict(word.partition("=")[::2] for word in words)
    check_columns(section, columns)
    return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfig:
    """One `[[data.sets]]` table: a prompt set among several."""

    path: str = field(default="", metadata=DOOR)
    """As data.path."""
    name: str | None = None
    """In front of its prompts' ids and in its metrics; by default the file's, dataset's or function's name."""
    weight: float | None = None
    """Its share of an epoch's prompts, relative to the weights of the other sets. Every set has one, or none: then all are taken whole."""
    split: str | None = None
    """Split of a Hugging Face dataset; by default data.split."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset."""
    options: dict[str, Option] = field(default_factory=dict)
    """As data.options."""
    columns: dict[str, str] | None = None
    """By default data.columns."""
    answer: str | None = None
    """By default data.answer."""
    system_prompt: str | None = None
    """By default data.system_prompt."""

    def __post_init__(self) -> None:
        if not self.path:
            raise Refused("a table of data.sets has no path; give each the path of a prompt set")
        if self.name is not None and (not self.name or "/" in self.name):
            raise Refused(f"data.sets.name = {self.name!r} must be a word without '/'")
        positive("data.sets", weight=self.weight)
        finite("data.sets", weight=self.weight)
        check_columns("data.sets", self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The prompts that training draws from."""

    path: str = field(default=_PATH, metadata=DOOR)
    """Prompt set: .parquet, .json or .jsonl file, Hugging Face dataset name, a set of the paper such as `aime24`, `embedded:train`,
    `reasoning_gym:TASK` (docs/reasoning_gym.md), or `module:function`, a function of yours that yields rows."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset, such as "main" of openai/gsm8k."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of a function in data.path; of a task of reasoning-gym `size`, `seed`, `levels`, `examples` and the fields of its
    configuration; of `reasoning_gym:composite` `size`, `seed` and the list of its tasks, `datasets`."""
    sets: tuple[SetConfig, ...] = ()
    """Several prompt sets in the place of data.path, each a `[[data.sets]]` table."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (prompt, answer, id, system) and those of the set's columns, as in { prompt = "question" }; "a.b" is column b in column a.
    By default the usual names."""
    answer: str = "whole"
    """Which part of the answer column is the gold: "whole", what follows the last "####" or "Answer:", the last "boxed", or a regular
    expression with one group."""
    system_prompt: str = ""
    """System message in front of every chat that has none of its own."""
    prompt_suffix: str = ""
    """Text appended to the user's message after one space, unless it ends with it already."""
    max_prompt_tokens: int = 1024
    """Longer prompts (after the chat template) are dropped and counted."""
    chat_template_options: dict[str, bool | str] = field(default_factory=dict)
    """Extra arguments of the chat template, such as `enable_thinking = true`."""
    strict: bool = False
    """A row whose answer no response could be compared with stops the run; otherwise it is dropped, counted and named."""
    decontaminate: tuple[str, ...] = ()
    """Evaluation sets (as `data.path`, or folders of files; other hub names read `eval.split`); prompts that are also there are dropped."""

    def __post_init__(self) -> None:
        at_least("data", 1, max_prompt_tokens=self.max_prompt_tokens)
        check_columns("data", self.columns)
        if self.sets and (self.path != _PATH or self.subset is not None or self.options):
            raise Refused("data.path, data.subset and data.options are those of one set, and data.sets names several; keep one of the two")
        weighted = [one.weight is not None for one in self.sets]
        if any(weighted) and not all(weighted):
            raise Refused("data.sets: some sets have a weight and others have none; give every set one, or none (all are taken whole)")
