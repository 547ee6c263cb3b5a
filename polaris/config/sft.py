"""The configuration of `polaris sft`: supervised fine-tuning on conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from polaris.config.bounds import at_least, at_most, positive
from polaris.config.job import JobConfig
from polaris.config.own_code import DOOR, Option
from polaris.errors import Refused

COLUMNS = ("messages", "prompt", "response")
"""Our names of the columns that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftDataConfig:
    """The conversations, and which parts of them are trained on."""

    path: str = field(default="", metadata=DOOR)
    """Conversations: .parquet, .json or .jsonl file, Hugging Face dataset name, or `module:function`, a function of yours that yields
    rows. A row has `messages`, or a `prompt` and a `response`."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of a function in data.path."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (messages, prompt, response) and those of the set's columns, as in { messages = "conversations" }. By default `messages`,
    or `prompt` (or problem, question) with `response` (or completion)."""
    train_on: tuple[str, ...] = ("assistant",)
    """Roles whose messages are trained on, each with the token that ends its turn. Of prompt and response, the response alone."""
    max_tokens: int = 4096
    """Longer conversations (after the chat template) are dropped and counted."""
    chat_template_options: dict[str, bool | str] = field(default_factory=dict)
    """Extra arguments of the chat template, such as `enable_thinking = true`."""

    def __post_init__(self) -> None:
        at_least("data", 2, max_tokens=self.max_tokens)
        _check_columns("data", self.columns)
        if not self.train_on:
            raise Refused('data.train_on is empty, so nothing would be trained; leave it out, or set it to ["assistant"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class SftTrainerConfig:
    """How long is trained, and the size of a step."""

    epochs: float | None = None
    """Times through the conversations; the last step takes what is left. Without it and without trainer.steps, 1."""
    steps: int | None = None
    """Steps, in the place of trainer.epochs."""
    examples_per_step: int = 64
    """Conversations of one step, over all ranks."""
    tokens_per_pack: int = 32768
    """Tokens of one forward pass on one rank; a single longer sequence gets a pack of its own."""
    max_nonfinite_steps: int = 3
    """Consecutive skipped updates (non-finite loss or gradient) after which the run stops."""
    cpu_threads: int | None = None
    """Threads of each rank's trainer on CPU; by default torch's choice."""

    def __post_init__(self) -> None:
        positive("trainer", cpu_threads=self.cpu_threads, epochs=self.epochs, steps=self.steps)
        at_most("trainer", 1024, cpu_threads=self.cpu_threads)
        sizes = {"tokens_per_pack": self.tokens_per_pack, "max_nonfinite_steps": self.max_nonfinite_steps}
        at_least("trainer", 1, examples_per_step=self.examples_per_step, **sizes)
        if self.epochs is not None and self.steps is not None:
            raise Refused("trainer.epochs and trainer.steps are two lengths of the run; keep one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftEvalConfig:
    """The loss on conversations that are held out."""

    path: str | None = field(default=None, metadata=DOOR)
    """Held-out conversations (as data.path), read and masked as [data] says."""
    split: str = "test"
    """Split of a Hugging Face dataset in eval.path."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset in eval.path."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of a function in eval.path."""
    columns: dict[str, str] | None = None
    """As data.columns, and by default those."""
    fraction: float | None = None
    """In the place of eval.path: so large a share of the conversations, chosen by a hash of content and seed, is held out of training."""
    every: int = 50
    """Steps between evaluations; the model at the start (step 0) and the last step are always evaluated."""

    def __post_init__(self) -> None:
        at_least("eval", 1, every=self.every)
        _check_columns("eval", self.columns or {})
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise Refused(f"eval.fraction = {self.fraction} must lie between 0 and 1, such as 0.05; or leave it out")
        if self.fraction is not None and self.path is not None:
            raise Refused("eval.path and eval.fraction are two held-out sets; keep one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig(JobConfig):
    """A whole fine-tuning: one field per section."""

    data: SftDataConfig = field(default_factory=SftDataConfig)
    trainer: SftTrainerConfig = field(default_factory=SftTrainerConfig)
    eval: SftEvalConfig = field(default_factory=SftEvalConfig)

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        if not self.data.path:
            raise Refused("data.path is missing; give a file of conversations, a Hugging Face dataset, or module:function")

    def steps(self, examples: int, step: int = 0, seen: int = 0) -> int:
        """Steps of the run over so many examples, of which the first `step` ones have taken `seen`: the last of a run that is made longer
        may have been a small one."""
        if self.trainer.steps is not None:
            return self.trainer.steps
        return step + ceil((self.total(examples) - seen) / self.trainer.examples_per_step)

    def total(self, examples: int) -> int:
        """Examples that are trained on over the whole run; one of two epochs counts twice."""
        if self.trainer.steps is not None:
            return self.trainer.steps * self.trainer.examples_per_step
        return max(1, round((self.trainer.epochs or 1.0) * examples))


def is_sft(values: Mapping[str, Any]) -> bool:
    """Whether a recorded configuration is one of `polaris sft`."""
    return "train_on" in values.get("data", {})


def _check_columns(section: str, columns: Mapping[str, str]) -> None:
    unknown = sorted(columns.keys() - set(COLUMNS))
    if unknown:
        raise Refused(
            f"{section}.columns.{unknown[0]} is unknown; write our name ({', '.join(COLUMNS)}) = the set's, as in "
            'columns = { messages = "conversations" }'
        )
    if "messages" in columns and len(columns) > 1:
        raise Refused(f"{section}.columns names messages beside prompt or response; a row has the one or the others: keep one form")
