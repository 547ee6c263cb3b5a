"""The prompts that training draws from."""

from __future__ import annotations

from dataclasses import dataclass, field

from polaris.config.bounds import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The prompts that training draws from."""

    path: str = "POLARIS-Project/Polaris-Dataset-53K"
    """Prompt set: .parquet, .json or .jsonl file, Hugging Face dataset name, a set of the paper such as `aime24`, or `embedded:train`."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
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
