"""The whole configuration of a run: one frozen dataclass per section, each in a file beside this one; needs only the standard library.

Every value has a default that suits a long run on GPUs; a TOML file and `--section.key=value` overrides change them
(`polaris.config.load`). A section checks the bounds of its own values; `RunConfig` checks what concerns two sections at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import ceil
from typing import Literal

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.bounds import finite
from polaris.config.composite import COMPOSITE, parts
from polaris.config.data import DataConfig, SetConfig
from polaris.config.job import JobConfig
from polaris.config.own_code import Option
from polaris.config.recipe import CurationConfig, CurriculumConfig, DifficultyConfig, EvalConfig, FinalConfig, ProbeConfig, StageConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig, SyncConfig
from polaris.config.training import HooksConfig, TrainerConfig
from polaris.doors import GYM, is_gym
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(JobConfig):
    """A whole run: one field per section, and what concerns all of them."""

    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    run: HooksConfig = field(default_factory=HooksConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    curation: CurationConfig = field(default_factory=CurationConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    stage: tuple[StageConfig, ...] = ()
    """Stages of training, in order; none means one of trainer.steps that drops no prompt."""
    final: FinalConfig = field(default_factory=FinalConfig)

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages that the run goes through, at least one."""
        return self.stage or (StageConfig(steps=self.trainer.steps, drop_above=1.0),)

    def sampling(self, stage: StageConfig) -> tuple[float | Literal["probe", "track"], int]:
        """The temperature and the longest response (tokens) of a stage: its own, else those of [rollout]."""
        temperature = self.rollout.temperature if stage.temperature is None else stage.temperature
        return temperature, self.rollout.max_response_tokens if stage.max_response_tokens is None else stage.max_response_tokens

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def prompts_begun(self) -> int:
        """Prompts that a step begins: more than it takes, with rollout.oversample."""
        return ceil(round(self.rollout.oversample * self.trainer.prompts_per_step, 6))

    @property
    def longest_response(self) -> int:
        """Most tokens that a response has in any phase before the final evaluation."""
        return max(*(self.sampling(stage)[1] for stage in self.stages), self.difficulty.max_response_tokens or 0)

    @property
    def difficulty_tokens(self) -> int:
        """Most tokens of a response of the difficulty pass: its own limit, else the first stage's."""
        own = self.difficulty.max_response_tokens
        return self.sampling(self.stages[0])[1] if own is None else own

    @property
    def _paths(self) -> tuple[str, ...]:
        """The sets that training asks, held-out ones too."""
        return (*(one.path for one in self.data.sets), self.data.path, *filter(None, [self.eval.path]))

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        curated = self.difficulty.samples_per_prompt > 0 or self.curation == CurationConfig()
        if not curated:
            raise Refused("[curation] needs pass rates; set difficulty.samples_per_prompt (the recipe: 8), or remove [curation]")
        if self.difficulty.stop_early and (self.curation.shape != "all" or self.curation.histogram):
            raise Refused("curation.shape and curation.histogram need the rates of all responses; remove difficulty.stop_early, or them")
        if "math" in self.reward.weights and (path := next(filter(is_gym, self._paths), None)) is not None:
            raise Refused(
                f"{path} comes with its own scorer, and the math grader does not know its answers; set reward.function = "
                '"reasoning_gym", or a reward of your own'
            )
        if self.curriculum.target and any(one.weight is not None for one in self.data.sets):
            raise Refused("curriculum.target and the weights of data.sets both say what is drawn how often; remove one of them")
        if self.rollout.carry_over and self.algorithm.correction == "off":
            raise Refused(
                "rollout.carry_over trains on tokens of older weights, which need an importance correction; set algorithm.correction to "
                '"tis" or "mask"'
            )
        if self.rollout.quantization != "none" and (self.algorithm.correction == "off" or self.model.dtype != "bfloat16"):
            raise Refused(
                f"rollout.quantization = {self.rollout.quantization!r} samples from other numbers than are trained, in bfloat16; set "
                'algorithm.correction to "tis" or "mask" and model.dtype to "bfloat16", or remove it'
            )
        if self.rollout.placement == "separate" and self.rollout.max_staleness:
            self._check_running_ahead()
        for index, stage in enumerate(self.stage):
            finite(f"stage.{index}", **{key.name: getattr(stage, key.name) for key in fields(stage)})

    def _check_running_ahead(self) -> None:
        ahead = f'rollout.placement = "separate" with rollout.max_staleness = {self.rollout.max_staleness}'
        if self.algorithm.correction == "off":
            raise Refused(
                f'{ahead} trains on tokens of older weights, which need an importance correction; set algorithm.correction to "tis" or '
                '"mask", or rollout.max_staleness to 0'
            )
        if self.algorithm.scarce == "generate":
            raise Refused(
                f'algorithm.scarce = "generate" makes a step wait for prompts behind those of later steps, which {ahead} has begun; '
                "set it to another value, or rollout.max_staleness to 0"
            )

    def check_new(self) -> None:
        """Raise `Refused` for what a configuration must not ask, though the record of an older run may hold it."""
        self.reward.check_process()
        if self.eval.path is None or not is_gym(self.eval.path):
            return
        tables: dict[str, DataConfig | SetConfig] = {f"data.sets.{index}": one for index, one in enumerate(self.data.sets)}
        sets = tables or {"data": self.data}
        trained = [problems for key, one in sets.items() for problems in _problems(key, one)]
        if same := [path for path, made in _problems("eval", self.eval) if (path, made) in trained]:
            raise Refused(
                f"[eval] and [data] have the same problems of {same[0]}; give eval.options another seed, or set eval.fraction "
                "in the place of eval.path"
            )
        if "examples" not in self.eval.options and any(is_gym(one.path or "") and one.options.get("examples") for one in sets.values()):
            raise Refused(
                "the prompts of [data] begin with worked examples and those of [eval] with none, so that they ask in another form; give "
                "eval.options the same examples, or examples = 0 if that is meant"
            )

    def check_positions(self, most: int) -> None:
        """Raise `Refused` unless prompt and response fit the model's `most` positions."""
        prompt, response = self.data.max_prompt_tokens, self.longest_response
        shorter = [("rollout.max_response_tokens (or a stage's)", most - prompt), ("data.max_prompt_tokens", most - response)]
        fits = ", ".join(f"{name} to {tokens} or less" for name, tokens in shorter if tokens > 0) or "both to less"
        if prompt + response > most:
            raise Refused(
                f"data.max_prompt_tokens + the longest max_response_tokens = {prompt} + {response} exceeds the model's {most} positions; "
                f"set {fits}, or rope.max_positions to {prompt + response} to go beyond"
            )

    def check_ranks(self, ranks: int) -> None:
        """Raise `Refused` unless ranks divide into engines, and a group has something to compare."""
        parallel = self.rollout.tensor_parallel
        if self.rollout.engine_ranks >= ranks:
            raise Refused(
                f"rollout.engine_ranks = {self.rollout.engine_ranks} leaves none of {ranks} rank{'s' if ranks > 1 else ''} to train; start "
                "with more (torchrun --nproc-per-node), or lower it"
            )
        trainers = ranks - self.rollout.engine_ranks
        self.check_trainers(trainers)
        if trainers % parallel and (self.rollout.placement == "colocated" or self.final.suite):
            raise Refused(
                f"rollout.tensor_parallel = {parallel} does not divide the {trainers} rank{'s' * (trainers != 1)} that train into engines; "
                "change it, or start another number of ranks (torchrun --nproc-per-node)"
            )
        if self.rollout.samples_per_prompt == 1:
            raise Refused("rollout.samples_per_prompt = 1 leaves nothing to compare within a group; set it to 2 or more")


def _problems(key: str, one: DataConfig | SetConfig | EvalConfig) -> list[tuple[str | None, dict[str, Option]]]:
    """What says which problems each task of a set of reasoning-gym makes; `size` says only how many, and `examples` what stands before
    them. Raises `Refused`, naming `key`, for a composite that says no tasks."""
    seed = {"seed": one.options.get("seed", 0)}
    if one.path == f"{GYM}{COMPOSITE}":
        return [(f"{GYM}{part.name}", {**part.config, **seed}) for part in parts(one.options, f"{key}.options")]
    return [(one.path, {name: value for name, value in one.options.items() if name not in ("size", "examples")} | seed)]
