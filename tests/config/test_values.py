"""Every bound at its edge: the last value that is accepted and the first that is not; and the defaults."""

import math

import pytest

from polaris.config.algorithm import AlgorithmConfig
from polaris.config.data import DataConfig
from polaris.config.model import RopeConfig
from polaris.config.recipe import CurationConfig, DifficultyConfig, EvalConfig, FinalConfig, ProbeConfig, StageConfig
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig, SyncConfig
from polaris.config.schema import RunConfig
from polaris.config.training import CheckpointConfig, DistributedConfig, ObserveConfig, OptimizerConfig, TrainerConfig
from polaris.errors import Refused

JUST_ABOVE_0, JUST_BELOW_1, JUST_ABOVE_1 = math.ulp(0.0), math.nextafter(1, 0), math.nextafter(1, 2)
LEAST = [
    (DataConfig, 1, ["max_prompt_tokens"]),
    (RolloutConfig, 1, ["samples_per_prompt", "max_response_tokens", "tensor_parallel", "max_concurrent", "oversample"]),
    (RolloutConfig, 0, ["max_staleness", "engine_ranks"]),
    (AlgorithmConfig, 0, ["clip_low", "clip_high", "min_informative", "rescue", "correction_low"]),
    (AlgorithmConfig, 1, ["max_draws"]),
    (OptimizerConfig, 0, ["warmup_steps", "weight_decay", "min_lr_fraction", "beta1", "beta2"]),
    (TrainerConfig, 1, ["steps", "prompts_per_step", "updates_per_step", "tokens_per_pack", "max_nonfinite_steps"]),
    (SyncConfig, 1, ["gap_factor"]),
    (CheckpointConfig, 1, ["every", "keep"]),
    (EvalConfig, 1, ["every", "samples_per_prompt"]),
    (ObserveConfig, 0, ["samples_per_step"]),
    (RunConfig, 0, ["seed"]),
    (RopeConfig, 1, ["factor"]),
    (DifficultyConfig, 0, ["samples_per_prompt"]),
    (ProbeConfig, 2, ["samples_per_prompt", "prompts"]),
    (ProbeConfig, 0, ["tolerance"]),
    (StageConfig, 1, ["steps"]),
    (StageConfig, 0, ["drop_above"]),
    (FinalConfig, 1, ["max_response_tokens"]),
]
ABOVE_0 = [
    (RolloutConfig, ["temperature", "gpu_memory_fraction"]),
    (RewardConfig, ["timeout_s"]),
    (OptimizerConfig, ["lr", "eps", "grad_clip"]),
    (DistributedConfig, ["update_timeout_minutes", "wait_timeout_hours"]),
    (DifficultyConfig, ["temperature"]),
    (CurationConfig, ["drop_from"]),
]
LEFT_OUT = [  # (section, whole numbers, other numbers) that are None by default
    (RewardConfig, ["workers"], []),
    (TrainerConfig, ["cpu_threads"], []),
    (SyncConfig, [], ["base_tolerance"]),
    (EvalConfig, [], ["temperature"]),
    (RopeConfig, ["original_positions", "max_positions"], ["attention_factor"]),
    (DifficultyConfig, ["max_response_tokens"], []),
    (StageConfig, ["max_response_tokens"], ["temperature", "eval_temperature"]),
    (FinalConfig, ["samples_per_prompt", "original_positions", "max_positions"], ["temperature", "attention_factor"]),
]
MOST = [
    (RolloutConfig, {"max_concurrent": 65536, "gpu_memory_fraction": JUST_BELOW_1}),
    (RewardConfig, {"workers": 1024}),
    (AlgorithmConfig, {"min_informative": 1.0, "correction_low": math.nextafter(2.0, 0)}),
    (RolloutConfig, {"oversample": 2.0}),
    (OptimizerConfig, {"beta1": JUST_BELOW_1, "beta2": JUST_BELOW_1}),
    (TrainerConfig, {"cpu_threads": 1024}),
    (DistributedConfig, {"update_timeout_minutes": 10_000.0, "wait_timeout_hours": 10_000.0}),
    (RunConfig, {"seed": 2**63 - 1}),
    (CurationConfig, {"drop_from": 1.0}),
    (ProbeConfig, {"tolerance": 0.3}),
    (StageConfig, {"drop_above": 1.0}),
]
# What else a value needs to stand: the fields that it is checked together with.
WITH = {"original_positions": {"factor": 2.0}, "attention_factor": {"factor": 2.0}, "clip_low": {}}
EDGES = (
    [(section, name, least, least - (1 if isinstance(least, int) else 0.0)) for section, least, names in LEAST for name in names]
    + [(section, name, JUST_ABOVE_0, 0.0) for section, names in ABOVE_0 for name in names]
    + [(section, name, 1, 0) for section, names, _ in LEFT_OUT for name in names]
    + [(section, name, JUST_ABOVE_0, 0.0) for section, _, names in LEFT_OUT for name in names]
    + [
        (section, name, most, most + 1 if isinstance(most, int) else math.nextafter(most, math.inf))
        for section, values in MOST
        for name, most in values.items()
    ]
)


def make(section, name, value):
    options = WITH.get(name, {}) if section is RopeConfig else {"steps": 1} if section is StageConfig and name != "steps" else {}
    return section(**options, **{name: value})


@pytest.mark.parametrize(("section", "name", "accepted", "refused"), EDGES, ids=lambda x: getattr(x, "__name__", None))
def test_the_last_value_is_accepted_and_the_next_refused_by_name(section, name, accepted, refused):
    assert getattr(make(section, name, accepted), name) == accepted
    with pytest.raises(Refused, match=name):
        make(section, name, refused)


@pytest.mark.parametrize(("section", "name"), [(section, name) for section, *both in LEFT_OUT for names in both for name in names])
def test_0_is_no_default(section, name):
    assert getattr(section(), name) is None
    with pytest.raises(Refused, match=rf"\.{name} = 0 must be above 0; correct it, or leave it out, which takes the default"):
        make(section, name, 0)


@pytest.mark.parametrize(
    ("section", "accepted", "refused"),
    [
        (AlgorithmConfig, {"dual_clip": "off"}, {"dual_clip": 0.0}),
        (AlgorithmConfig, {"dual_clip": JUST_ABOVE_1}, {"dual_clip": 1.0}),
        (AlgorithmConfig, {"rescue": 1}, {"rescue": 1, "correction": "off"}),
        (AlgorithmConfig, {"rescue": 0, "correction": "off"}, {"correction_low": 2.0, "correction_high": 2.0}),
        (AlgorithmConfig, {"scarce": "skip", "min_informative": 0.1}, {"scarce": "skip"}),
        (RolloutConfig, {"oversample": 1.25, "carry_over": True}, {"oversample": 1.0, "carry_over": True}),
        (RolloutConfig, {"oversample": 1.25, "max_staleness": 1}, {"oversample": 1.25, "max_staleness": 0}),
        (RolloutConfig, {"episode": "mine:turn"}, {"episode": "mine:turn", "oversample": 1.25}),
        (TrainerConfig, {"prompts_per_step": 6, "updates_per_step": 3}, {"prompts_per_step": 6, "updates_per_step": 4}),
        (RopeConfig, {"factor": JUST_ABOVE_1, "original_positions": 1}, {"factor": 1.0, "original_positions": 1}),
        (RopeConfig, {"factor": 1.5, "attention_factor": 0.5}, {"factor": 1.0, "attention_factor": 0.5}),
        (DifficultyConfig, {"samples_per_prompt": 2, "column": "rate"}, {"column": "rate"}),
        (DifficultyConfig, {"samples_per_prompt": 2}, {"samples_per_prompt": 1}),
        (CurationConfig, {"histogram": (0.0, 1.0)}, {"histogram": (0.0, 0.0)}),
        (CurationConfig, {"histogram": (1.0,), "shape": "all"}, {"histogram": (1.0,), "shape": "j"}),
        (ProbeConfig, {"prompts": "all"}, {"prompts": 0}),
        (ProbeConfig, {"temperatures": (0.1, 0.2, 0.3)}, {"temperatures": (0.1, 0.2)}),
        (ProbeConfig, {"temperatures": (0.1, 0.2, 0.3)}, {"temperatures": (0.0, 0.2, 0.3)}),
        (ProbeConfig, {"temperatures": (0.1, 0.2, 0.3)}, {"temperatures": (0.2, 0.1, 0.3)}),
        (ProbeConfig, {"temperatures": (0.1, 0.2, 0.3)}, {"temperatures": (0.1, 0.2, 0.2)}),
        (FinalConfig, {"rope_factors": (1.0,)}, {"rope_factors": ()}),
        (FinalConfig, {"rope_factors": (1.0,)}, {"rope_factors": (0.9,)}),
    ],
)
def test_values_that_are_checked_together(section, accepted, refused):
    section(**accepted)
    with pytest.raises(Refused):
        section(**refused)


def test_tokens_of_older_weights_need_a_correction():
    carries = RolloutConfig(oversample=1.25, carry_over=True)
    assert RunConfig(rollout=carries, trainer=TrainerConfig(prompts_per_step=8)).prompts_begun == 10
    assert RunConfig(rollout=RolloutConfig(oversample=1.1), trainer=TrainerConfig(prompts_per_step=10)).prompts_begun == 11
    RunConfig(rollout=RolloutConfig(oversample=1.25), algorithm=AlgorithmConfig(correction="off"))
    with pytest.raises(Refused, match=r"rollout\.carry_over .*set algorithm\.correction to"):
        RunConfig(rollout=carries, algorithm=AlgorithmConfig(correction="off"))


DEFAULTS = {
    "run": {"seed": 0, "deterministic": False},
    "model": {"dtype": "bfloat16", "fused_modules": True},
    "memory": {"activations": "recompute", "optimizer": "device"},
    "data": {"max_prompt_tokens": 1024, "strict": False},
    "rollout": {"samples_per_prompt": 8, "temperature": 1.0, "max_response_tokens": 8192, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    | {"repetition_penalty": 1.0, "tensor_parallel": 1, "max_concurrent": 256, "gpu_memory_fraction": 0.8, "kv_cache_mib": 256},
    "reward": {"workers": None, "timeout_s": 5.0},
    "algorithm": {"loss": "dapo", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "correction": "tis", "correction_high": None}
    | {"correction_low": None, "substitution": False, "min_informative": 0.0, "max_draws": 3, "rescue": 0},
    "optimizer": {"lr": 1e-6, "schedule": "constant", "warmup_steps": 0, "min_lr_fraction": 0.0, "beta1": 0.9, "beta2": 0.999}
    | {"eps": 1e-8, "weight_decay": 0.01, "grad_clip": 1.0},
    "trainer": {"steps": 100, "prompts_per_step": 128, "updates_per_step": 1, "tokens_per_pack": 32768, "max_nonfinite_steps": 3}
    | {"cpu_threads": None},
    "sync": {"gap_factor": 3.0, "base_tolerance": None},
    "distributed": {"update_timeout_minutes": 30.0, "wait_timeout_hours": 12.0},
    "checkpoint": {"every": 10, "keep": 2},
    "eval": {"every": 10, "samples_per_prompt": 4, "temperature": None, "path": None},
    "observe": {"tensorboard": True, "samples_per_step": 4, "wandb_project": None},
    "rope": {"factor": 1.0, "original_positions": None, "attention_factor": None, "max_positions": None},
    "difficulty": {"samples_per_prompt": 0, "temperature": 0.6, "max_response_tokens": None, "column": None} | {"stop_early": False},
    "curriculum": {"target": (), "width": 0.15, "half_life": 50, "plateau": 0},
    "curation": {"drop_from": 1.0, "shape": "all"},
    "probe": {"temperatures": (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8), "samples_per_prompt": 8, "prompts": 60, "tolerance": 0.01},
    "final": {"samples_per_prompt": None, "temperature": None, "top_k": 20, "max_response_tokens": 90000, "rope_factors": (1.0, 1.5)}
    | {"original_positions": None, "attention_factor": None, "max_positions": None},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    section = RunConfig() if name == "run" else getattr(RunConfig(), name)
    assert {field: getattr(section, field) for field in DEFAULTS[name]} == DEFAULTS[name]


def test_defaults_of_a_stage():
    expected = {"steps": 100, "max_response_tokens": None, "temperature": None, "eval_temperature": None, "drop_above": 0.9}
    assert {name: getattr(StageConfig(), name) for name in expected} == expected
