"""Settings of an evaluation. Importing this file needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from polaris.config.bounds import at_least, finite, positive
from polaris.config.model import ModelConfig
from polaris.config.own_code import Option
from polaris.config.recipe import FinalConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.doors import short
from polaris.errors import Refused

PAPER = FinalConfig()
"""The recipe's own evaluation (blog, section 3): top-k 20, 90,000 tokens, prompt suffix."""
PAPER_TEMPERATURE = 1.4
PLAIN = RewardConfig()
"""The defaults: answers in boxes, a full score is correct."""
PAPER_BUCKETS = (16_384, 32_768)
"""Edges, in tokens, of the recipe's length buckets: below 16K, 16K to 32K, and above."""


def buckets_for(max_tokens: int) -> tuple[int, ...]:
    """The recipe's edges if responses may reach the last bucket; else `()`, which means quartiles."""
    return PAPER_BUCKETS if max_tokens > PAPER_BUCKETS[-1] else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """An OpenAI-compatible server that generates instead of an engine."""

    url: str
    """Address including the version, such as `http://host:8000/v1`."""
    model: str
    """The name under which it serves the model."""
    concurrency: int = 64
    """Requests that one rank keeps open at a time."""
    attempts: int = 8
    """Tries per sample if the server answers with an error of its own (408, 429, 5xx); the pause between tries doubles from a second
    to a minute."""
    patience_s: float = 600.0
    """Give up after so many seconds without an answer to any request; until then, requests that do not reach the server are repeated."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise Refused(f"--server {self.url} must begin with http:// or https://")
        if not urlsplit(self.url).hostname or set("@?#") & set(self.url):
            raise Refused("--server must be a host with port and path, such as http://host:8000/v1; a key goes into OPENAI_API_KEY")
        if not self.model:
            raise Refused("--server needs --model, the name under which it serves the model")
        at_least("server", 1, concurrency=self.concurrency, attempts=self.attempts)
        if not self.patience_s > 0:
            raise Refused(f"--server-patience {self.patience_s:g} must be above 0: seconds without an answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """One evaluation. `server` replaces `model` and `rollout`; of `rollout` only the engine's fields are used.

    Messages name the fields of a training run's `[final]`; `polaris eval` translates them into its options.
    """

    suite: tuple[str, ...]
    """Named sets (`polaris.evaluation.suites`), files, folders of files, or Hugging Face datasets."""
    data_folder: str | None = None
    """Folder in which named sets (`<name>.parquet`, `.json`, `.jsonl`) are looked for before the hub."""
    split: str = "test"
    """Split of Hugging Face datasets other than named sets."""
    samples_per_prompt: int | None = None
    """By default the paper's count for each named set."""
    temperature: float = PAPER_TEMPERATURE
    top_k: int = PAPER.top_k
    max_response_tokens: int = PAPER.max_response_tokens
    prompt_suffix: str = PAPER.prompt_suffix
    """Appended to the user's message after one space, unless the message ends with it."""
    rope_factors: tuple[float, ...] = (1.0,)
    """All samples are drawn once per YaRN factor; 1 keeps the checkpoint's own rotary embedding."""
    original_positions: int | None = None
    """Positions that YaRN extends; by default the checkpoint's."""
    attention_factor: float | None = None
    """YaRN's factor on cosines and sines; by default its 0.1 ln(factor) + 1. 1 turns it off."""
    max_positions: int | None = None
    """Longest sequence in tokens; by default the checkpoint's, or what YaRN makes of it. Beyond, the model extrapolates."""
    chat_template_options: dict[str, bool | str] = field(default_factory=dict)
    system_prompt: str = ""
    """System message in front of every chat that has none of its own."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns of sets that are no named ones, as `data.columns`."""
    answer: str = "whole"
    """Which part of their answers is the gold, as `data.answer`."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of functions and of tasks of reasoning-gym, as `data.options`."""
    buckets: tuple[int, ...] = PAPER_BUCKETS
    """Rising edges of the length buckets in tokens; empty means the quartiles of each set's response lengths."""
    seed: int = 0
    against: tuple[str, ...] = ()
    """Sets whose overlap with the evaluation sets is reported, besides what an evaluated run was trained on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    """How answers are found and graded: `answer`, `require_thinking`, `success_above` (of tasks of reasoning-gym) and the processes'
    limits. Each set has its grader, whatever `function` is."""
    server: ServerSettings | None = None

    def __post_init__(self) -> None:
        if self.data_folder is not None and not Path(self.data_folder).expanduser().is_dir():
            raise Refused(f"--data-folder {self.data_folder} is no folder; correct it, or leave it out to read the hub")
        if not self.suite:
            raise Refused("no evaluation set is named; give final.suite, such as aime24,amc23")
        finite("final", temperature=self.temperature, rope_factors=self.rope_factors)
        if self.temperature <= 0:
            raise Refused(f"final.temperature {self.temperature} must be above 0: avg@k is a mean over samples")
        positive("final", samples_per_prompt=self.samples_per_prompt, original_positions=self.original_positions)
        positive("final", attention_factor=self.attention_factor, max_positions=self.max_positions)
        at_least("final", 0, seed=self.seed)
        at_least("final", 1, max_response_tokens=self.max_response_tokens)
        if self.top_k != -1 and self.top_k < 1:
            raise Refused(f"final.top_k {self.top_k} must be at least 1, or -1 for all tokens")
        at_least("final", 1, **{f"rope_factors[{index}]": factor for index, factor in enumerate(self.rope_factors)})
        if not self.rope_factors or len(set(self.rope_factors)) < len(self.rope_factors):
            raise Refused(f"final.rope_factors {self.rope_factors} must be named once each")
        edges = self.buckets
        if list(edges) != sorted(set(edges)) or min(edges, default=1) <= 0:
            raise Refused(f"length buckets {edges} must rise from above 0")
        if self.server is not None and self.rope_factors != (1.0,):
            raise Refused("--yarn needs an engine; a --server has its own rotary embedding")
        if self.server is not None and self.max_positions is not None:
            raise Refused("--max-positions needs an engine; a --server has its own limit")

    def identity(self) -> dict[str, Any]:
        """Settings that decide samples and verdicts; not the number of samples, speed, sources or buckets."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "max_response_tokens": self.max_response_tokens,
            "prompt_suffix": self.prompt_suffix,
            "yarn": {  # 0 for a setting left out, as in folders of older versions
                f"{factor:g}": {"original_positions": self.original_positions or 0, "attention_factor": self.attention_factor or 0.0}
                for factor in self.rope_factors
                if factor > 1
            },
            "chat_template_options": self.chat_template_options,
            "seed": self.seed,
            "require_thinking": self.reward.require_thinking,
            # Left out where they are the default, as in folders of older versions.
            **({} if self.reward.answer == PLAIN.answer else {"answer_form": self.reward.answer}),
            **({} if self.reward.success_above is None else {"success_above": self.reward.success_above}),
        }


def final_settings(config: RunConfig, checkpoint: Path, temperature: float) -> EvalSettings:
    """Settings of a run's final evaluation of the exported folder `checkpoint`, at `final.temperature`, else at `temperature`."""
    final = config.final
    scores = short(next(iter(config.reward.weights))) == "reasoning_gym"  # else `success_above` is of other numbers
    return EvalSettings(
        suite=final.suite,
        split=config.eval.split,
        samples_per_prompt=final.samples_per_prompt,
        temperature=temperature if final.temperature is None else final.temperature,
        top_k=final.top_k,
        max_response_tokens=final.max_response_tokens,
        prompt_suffix=final.prompt_suffix,
        rope_factors=final.rope_factors,
        original_positions=config.rope.original_positions if final.original_positions is None else final.original_positions,
        attention_factor=final.attention_factor,
        max_positions=config.rope.max_positions if final.max_positions is None else final.max_positions,
        chat_template_options=config.data.chat_template_options,
        system_prompt=config.data.system_prompt,
        columns=config.data.columns if final.columns is None else final.columns,
        answer=final.answer or config.data.answer,
        options=final.options,
        buckets=buckets_for(final.max_response_tokens),
        seed=config.seed,
        model=ModelConfig(path=str(checkpoint), dtype=config.model.dtype, chat_template=config.model.chat_template),
        rollout=config.rollout,
        reward=config.reward if scores else replace(config.reward, success_above=None),
    )
