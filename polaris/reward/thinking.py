"""Whether a response needs `</think>`, by the chat template or else by the model's own responses.

A prompt that ends in an open `<think>` (R1 distills, Qwen3-thinking) is answered by thinking: a response without `</think>` was never
finished. One that ends in `</think>` (`enable_thinking = false`) is answered without. Any other prompt leaves it to the model: if most
responses open thinking (Qwen3, an instructed base model), all must end it; if not (Qwen2.5, SmolLM2), none must.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from polaris.reward.extract import END_OF_THINKING, START_OF_THINKING


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """Whether a response without `</think>` has no answer, and why."""

    required: bool
    why: str

    def __str__(self) -> str:
        return f"an answer counts {'only after' if self.required else 'without'} </think>: {self.why}"


def by_template(prompts: Iterable[str]) -> Thinking | None:
    """The decision by the ends of rendered prompts; None if they leave it to the model, or differ."""
    ends = {_end(prompt) for prompt in prompts}
    if ends == {START_OF_THINKING}:
        return Thinking(required=True, why=f"the chat template opens {START_OF_THINKING}")
    if ends == {END_OF_THINKING}:
        return Thinking(required=False, why="the chat template closes thinking")
    return None


def by_responses(opened: Iterable[bool]) -> Thinking:
    """The decision by the model's own responses; `opened` says for each whether it has opened thinking."""
    found = list(opened)
    most = 2 * sum(found) > len(found)
    return Thinking(required=most, why=f"{sum(found)} of {len(found)} responses open thinking")


def opens_thinking(response: str, prompt: str = "") -> bool:
    """Whether a response thinks: it opens thinking, or its rendered prompt does."""
    return START_OF_THINKING in response or END_OF_THINKING in response or _end(prompt) == START_OF_THINKING


def _end(prompt: str) -> str:
    text = prompt.rstrip()
    return next((mark for mark in (START_OF_THINKING, END_OF_THINKING) if text.endswith(mark)), "")
