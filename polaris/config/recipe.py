"""Sections of the recipe: rope, difficulty pass, curation, temperature probe, stages, and evaluation during and after training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polaris.config.bounds import at_least, at_most, positive
from polaris.config.data import Option, check_columns
from polaris.config.own_code import DOOR
from polaris.errors import Refused

ROUND = 4
"""Responses of a prompt between two looks whether it is settled (`difficulty.stop_early`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyConfig:
    """The pass before training that measures how often the model itself solves each prompt."""

    samples_per_prompt: int = 0
    """Rollouts per prompt (the recipe: 8); 0 leaves the pass out."""
    column: str | None = None
    """Column of `data.path` with pass rates of this model that were measured before, such as "5/8", or 0.625 of samples_per_prompt
    responses; then nothing is sampled."""
    stop_early: bool = False
    """A prompt gets its responses in rounds of 4, and no more once they cannot change whether [curation] drops it."""
    temperature: float = 0.6
    """Sampling temperature of the pass; above 0, since a pass rate needs samples."""
    max_response_tokens: int | None = None
    """Longest response of the pass in tokens; by default the first stage's."""

    def __post_init__(self) -> None:
        at_least("difficulty", 0, samples_per_prompt=self.samples_per_prompt)
        positive("difficulty", max_response_tokens=self.max_response_tokens)
        if self.samples_per_prompt == 1:
            raise Refused("difficulty.samples_per_prompt = 1 finds no prompt that is solved sometimes; set it to 2 or more")
        if self.samples_per_prompt == 0 and self.column is not None:
            raise Refused(
                f"difficulty.column = {self.column!r} needs the number of responses behind its rates; set difficulty.samples_per_prompt"
            )
        if self.stop_early and (self.column is not None or self.samples_per_prompt <= ROUND):
            raise Refused(
                f"difficulty.stop_early leaves out responses after a prompt's first {ROUND}, and this pass has none; remove it, or set "
                "difficulty.samples_per_prompt to more (the recipe: 8) without difficulty.column"
            )
        if not self.temperature > 0:
            raise Refused(f"difficulty.temperature = {self.temperature} must be above 0: a pass rate needs samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationConfig:
    """Which prompts are left for training after the difficulty pass."""

    drop_from: float = 1.0
    """Prompts with this pass rate or a higher one are removed."""
    drop_up_to: float | None = None
    """Prompts with this pass rate or a lower one are removed; 0 removes what is never solved. By default none is."""
    shape: Literal["all", "mirrored_j"] = "all"
    """`mirrored_j`: no bin of pass rates larger than that of the never solved prompts, and no more prompts above 1/2 than below."""
    histogram: tuple[float, ...] = ()
    """Target shares of equal bins of pass rate from 0 to 1, hardest first; the largest set that has them is kept. Empty: no target."""

    def __post_init__(self) -> None:
        if not 0 < self.drop_from <= 1:
            raise Refused(f"curation.drop_from = {self.drop_from} must lie in (0, 1]; 1 removes what is always solved")
        if self.drop_up_to is not None and not 0 <= self.drop_up_to < self.drop_from:
            raise Refused(f"curation.drop_up_to = {self.drop_up_to} must lie in [0, {self.drop_from}), below curation.drop_from")
        if self.drop_up_to is not None and self.shape == "mirrored_j":
            raise Refused('curation.shape = "mirrored_j" is measured by the prompts that are never solved; remove curation.drop_up_to')
        at_least("curation", 0, **{f"histogram[{index}]": share for index, share in enumerate(self.histogram)})
        if self.histogram and sum(self.histogram) <= 0:
            raise Refused("curation.histogram has no share above 0; remove it, or give it one")
        if self.histogram and self.shape != "all":
            raise Refused("curation.shape and curation.histogram are two targets for one set; give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumConfig:
    """Target-difficulty sampling: prompts whose recent pass rate is near a target are drawn more often."""

    target: tuple[float, ...] = ()
    """Target pass rate of the first step and of the run's last, such as [0.7, 0.3], and linear in between. Empty: every prompt once in an
    epoch."""
    width: float = 0.15
    """Standard deviation of the Gaussian around the target; 0.05 or more."""
    half_life: int = 50
    """Steps after which a verdict counts half in the recent pass rate, since an older policy has earned it."""
    prior: str | None = None
    """Column of the prompts with pass rates of another model, such as "5/8" or 0.625: each prompt begins with it as with two verdicts."""
    plateau: int = 0
    """Where the share of informative groups has not risen from so many steps to the next so many, the recent pass rates are measured
    anew; 0: never."""

    def __post_init__(self) -> None:
        at_least("curriculum", 0, plateau=self.plateau)
        at_least("curriculum", 1, half_life=self.half_life)
        at_least("curriculum", 0.05, width=self.width)
        at_most("curriculum", 10, width=self.width)
        if self.target and (len(self.target) != 2 or not all(0 <= rate <= 1 for rate in self.target)):
            raise Refused(f"curriculum.target = {list(self.target)} must be two pass rates in [0, 1], such as [0.7, 0.3], or be left out")
        if (self.plateau or self.prior is not None) and not self.target:
            raise Refused("curriculum.plateau and curriculum.prior are of use with curriculum.target; set it, such as to [0.7, 0.3]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """The temperature probe: accuracy and diversity over a grid of temperatures, on part of the held-out set."""

    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)
    """The grid, rising from above 0; three at least."""
    samples_per_prompt: int = 8
    """Most responses to each prompt at a temperature; fewer where they cannot change the choice."""
    prompts: int | Literal["all"] = 60
    """The first prompts of the held-out set (of the training set where there is none), so many or "all"."""
    diversity: Literal["auto", "words", "tokens"] = "auto"
    """4-grams of words between white space, as published, or of tokens. "auto" takes tokens where the coolest responses have few
    words: short answers, or a script without spaces."""
    tolerance: float = 0.01
    """Share of the best accuracy that robust generation may lose (`polaris.algorithm.zones`); the choice allows for 0.03 at least."""

    def __post_init__(self) -> None:
        at_least("probe", 2, samples_per_prompt=self.samples_per_prompt)
        if self.prompts != "all" and self.prompts < 2:
            raise Refused(f'probe.prompts = {self.prompts} says nothing of other prompts; set it to 60 or more, or to "all"')
        grid = self.temperatures
        if len(grid) < 3 or list(grid) != sorted(set(grid)) or grid[0] <= 0:
            raise Refused(f"probe.temperatures = {list(grid)} must rise from above 0, three at least")
        if not 0 <= self.tolerance <= 0.3:
            raise Refused(f"probe.tolerance = {self.tolerance} must lie in [0, 0.3]; a loss of 0.3 is collapse")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One `[[stage]]` of training."""

    steps: int = 100
    """Steps of this stage; those of all stages make the run's."""
    max_response_tokens: int | None = None
    """Longest response of this stage in tokens; by default rollout.max_response_tokens."""
    temperature: float | Literal["probe", "track"] | None = None
    """A number; "probe" to measure it at the stage's start; or "track" to move it over the stage so that responses stay as diverse as they
    were at its start, which is the probe's in the first stage and the end of the stage before in a later one. By default
    rollout.temperature."""
    eval_temperature: float | None = None
    """Sampling temperature of evaluations in this stage; by default eval.temperature."""
    drop_above: float = 0.9
    """At the stage's end prompts with a higher running pass rate are dropped; 1 drops none."""

    def __post_init__(self) -> None:
        at_least("stage", 1, steps=self.steps)
        at_least("stage", 0, drop_above=self.drop_above)
        at_most("stage", 1, drop_above=self.drop_above)
        positive("stage", max_response_tokens=self.max_response_tokens, eval_temperature=self.eval_temperature)
        positive("stage", temperature=None if isinstance(self.temperature, str) else self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """Evaluation on a held-out set while training goes on."""

    path: str | None = field(default=None, metadata=DOOR)
    """Held-out prompt set (as `data.path`); without it nothing is evaluated until the end."""
    split: str = "test"
    """Split of a Hugging Face dataset in eval.path."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset in eval.path."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of a function in eval.path."""
    columns: dict[str, str] | None = None
    """As data.columns, and by default those."""
    answer: str | None = None
    """As data.answer, and by default that."""
    fraction: float | None = None
    """In the place of eval.path: so large a share of each set's problems, chosen by a hash of text and seed, is held out of training."""
    every: int = 10
    """Steps between evaluations; the base model (step 0) and the last step are always evaluated."""
    samples_per_prompt: int = 4
    """Responses per held-out prompt; eval/accuracy is their mean reward (avg@k)."""
    temperature: float | None = None
    """Sampling temperature; by default that of training."""

    def __post_init__(self) -> None:
        check_columns("eval", self.columns)
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise Refused(f"eval.fraction = {self.fraction} must lie between 0 and 1, such as 0.05; or leave it out")
        if self.fraction is not None and self.path is not None:
            raise Refused("eval.path and eval.fraction are two held-out sets; keep one of them")
        at_least("eval", 1, every=self.every, samples_per_prompt=self.samples_per_prompt)
        positive("eval", temperature=self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalConfig:
    """The evaluation after the last stage, of the exported checkpoint."""

    suite: tuple[str, ...] = ()
    """Evaluation sets (as `polaris eval --suite`); empty means no final evaluation."""
    columns: dict[str, str] | None = None
    """As data.columns, and by default those, for sets that are not the paper's."""
    answer: str | None = None
    """As data.answer, and by default that, for sets that are not the paper's."""
    options: dict[str, Option] = field(default_factory=dict)
    """Arguments of a function, or of a task of reasoning-gym, among the sets, such as { size = 200, seed = 1 }."""
    samples_per_prompt: int | None = None
    """Responses to each problem; by default the paper's count for each set."""
    temperature: float | None = None
    """Sampling temperature; by default the last stage's of training, and the recipe says never above that."""
    top_k: int = 20
    """Sample from this many most probable tokens; -1 means all."""
    max_response_tokens: int = 90_000
    """Longest response in tokens."""
    rope_factors: tuple[float, ...] = (1.0, 1.5)
    """Each set is evaluated with each YaRN factor; 1 is the checkpoint's own rotary embedding."""
    original_positions: int | None = None
    """As rope.original_positions, and by default that."""
    attention_factor: float | None = None
    """As rope.attention_factor."""
    max_positions: int | None = None
    """As rope.max_positions, and by default that."""
    prompt_suffix: str = "Let's think step by step and output the final answer within \\boxed{}."
    """Text appended to each problem after one space, unless it ends with it already."""

    def __post_init__(self) -> None:
        positive(
            "final",
            samples_per_prompt=self.samples_per_prompt,
            temperature=self.temperature,
            original_positions=self.original_positions,
            attention_factor=self.attention_factor,
            max_positions=self.max_positions,
        )
        check_columns("final", self.columns)
        at_least("final", 1, max_response_tokens=self.max_response_tokens)
        at_least("final", 1, **{f"rope_factors[{index}]": factor for index, factor in enumerate(self.rope_factors)})
        if not self.rope_factors:
            raise Refused("final.rope_factors is empty; [1.0] evaluates without YaRN")
