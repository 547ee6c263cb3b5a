"""From a configuration to the rooms: first everything that can be wrong, then everything that takes time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from polaris.checkpoint import layout
from polaris.checkpoint.branch import DEFAULT_START, Start, begin
from polaris.checkpoint.run_folder import Origin, RunFolder, open_run
from polaris.checkpoint.state import TrainState
from polaris.config.checks import check_batch, check_model_limits
from polaris.config.load import dump_config
from polaris.config.recipe import DifficultyConfig
from polaris.config.schema import RunConfig
from polaris.data import answer_format
from polaris.data.digest import digest, fingerprint
from polaris.data.evaluation_sets import EvaluationSet, read_evaluation_sets
from polaris.data.ledger import Ledger
from polaris.data.prompts import PromptSet, load_prompts, ungradable_rows
from polaris.data.sampler import Sampler
from polaris.distributed.fsdp import shard
from polaris.distributed.mesh import World
from polaris.distributed.seeds import seed_everything
from polaris.distributed.shared import check_same, check_shared
from polaris.embedded import resolve
from polaris.learn.optimizer import build_optimizer
from polaris.learn.successes import Successes
from polaris.model.check import check_checkpoint
from polaris.model.fused import can_fuse, fuse_modules
from polaris.model.identity import model_identity
from polaris.model.load import ModelFacts, build_model, count_parameters, load_tokenizer, load_weights, locate_model
from polaris.model.policy import Policy
from polaris.model.rope import resolve_rope, rotary_table
from polaris.model.rope_check import check_rope
from polaris.observe.console import Console
from polaris.observe.metrics import MetricsFile
from polaris.observe.samples import RolloutRecorder
from polaris.observe.trackers import check_trackers, open_trackers
from polaris.reward.pool import GraderPool
from polaris.rollout.checkpoint import check_vocabulary, stop_tokens
from polaris.rollout.engine import check_engine, check_model, create_engine
from polaris.run.context import Rooms
from polaris.run.loop import Recorder
from polaris.run.memory import activation_bytes, check_memory
from polaris.run.serve import measure_gap
from polaris.run.thinking import settle_thinking
from polaris.sampling.context import EngineRooms
from polaris.stop import StopRequest, is_main
from polaris.sync.probe import Probe, Yardstick, check_far_gap, make_far_probe, make_probe, take_yardstick
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the checks have read."""

    config: RunConfig
    engine: str
    model: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptSet
    held_out: PromptSet | None
    origin: Origin | None = None
    """The other run that this one begins with."""
    file: str = ""
    """The file that the configuration was read from, in words."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What names and paths of the configuration stand for, by which a resumed run is known to be the same; rank 0 has it."""


def check_ranks(checked: Checked, folder: RunFolder, world: World) -> None:
    """Raise `Refused` unless all ranks share the run's folder and have read the same; a rank's rollouts name prompts by their place."""
    if world.size == 1:
        return
    check_shared(folder.path, world)
    facts = {"the configuration": dump_config(checked.config), checked.config.data.path: digest(checked.prompts.prompts)}
    if checked.held_out is not None:
        facts |= {f"{checked.config.eval.path} (held out)": digest(checked.held_out.prompts)}
    check_same(facts, world)


def prepare(
    config: RunConfig, start: Start = DEFAULT_START, check_later: Callable[[RunConfig, Path], None] | None = None
) -> tuple[Checked, RunFolder]:
    """Check everything and open the run's folder. Raises `ValueError` with the remedy.

    `check_later` checks configuration and checkpoint folder for what comes after training.
    """
    config, origin = begin(config, start)
    checked, main = check(config), is_main()
    if check_later is not None:
        check_later(config, checked.model.folder)
    checked = replace(checked, origin=origin, content=_content(checked) if main else {})
    return checked, open_run(config, start.fresh, main, change=start.change, content=checked.content)


def _content(checked: Checked) -> dict[str, Any]:
    prompts, held_out = checked.prompts.prompts, checked.held_out
    passes = {"passes": fingerprint(prompt.passes for prompt in prompts)} if checked.config.difficulty.column else {}
    return {
        "engine": checked.engine,
        "model": model_identity(checked.model.folder),
        "prompts": _identity(prompts) | passes,
        "held_out": _identity(held_out.prompts) if held_out else None,
    }


def _identity(prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"prompts": len(prompts), "digest": digest(prompts)}


def check(config: RunConfig) -> Checked:
    """Everything that can be wrong with a configuration, found before any weight is read.

    Raises:
        ValueError: with the remedy.
    """
    check_batch(config, int(os.environ.get("WORLD_SIZE", "1")))
    engine = check_engine(config.rollout)
    if is_main():
        check_trackers(config)
    model = locate_model(replace(config.model, path=resolve(config.model.path)))
    check_checkpoint(model.folder, config.rope, max_model_len(config))
    check_model_limits(config, resolve_rope(model.folder, config.rope).max_positions)
    stop_tokens(model.folder)
    tokenizer = load_tokenizer(model.folder)
    unseen = read_evaluation_sets(config.data.decontaminate, config.eval.split)
    prompts = _load(config, config.data.path, config.data.split, tokenizer, unseen, config.difficulty)
    Sampler(len(prompts.prompts), config.trainer.prompts_per_step, config.seed)
    held_out = _load(config, config.eval.path, config.eval.split, tokenizer) if config.eval.path else None
    tokens = [prompt.tokens for prompt in (*prompts.prompts, *(held_out.prompts if held_out else ()))]
    check_vocabulary(tokens, model.vocab_size, tokenizer)
    check_model(config.rollout, model.folder, config.model, max_model_len=max_model_len(config), rope=config.rope)
    return Checked(config=config, engine=engine, model=model, tokenizer=tokenizer, prompts=prompts, held_out=held_out)


def _load(
    config: RunConfig,
    path: str,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    evaluation_sets: Sequence[EvaluationSet] = (),
    difficulty: DifficultyConfig | None = None,
) -> PromptSet:
    return load_prompts(
        resolve(path),
        split=split,
        tokenizer=tokenizer,
        max_prompt_tokens=config.data.max_prompt_tokens,
        prompt_suffix=config.data.prompt_suffix,
        chat_template_options=config.data.chat_template_options,
        strict=config.data.strict,
        evaluation_sets=evaluation_sets,
        difficulty=difficulty,
    )


@contextmanager
def open_rooms(checked: Checked, world: World, stop: StopRequest) -> Iterator[Rooms]:
    """Load the model, start engine and grader; closed again in reverse order."""
    config = checked.config
    with stop.at_once():
        policy, rotary = _load_policy(checked, world)
        optimizer = build_optimizer(policy, config.optimizer)
    with open_engine_rooms(checked, world, stop) as rooms:
        with stop.at_once():
            probe, yardstick = _compare(checked, rooms, policy, rotary)
        yield Rooms(
            **{one.name: getattr(rooms, one.name) for one in fields(rooms)},
            prompts=checked.prompts.prompts,
            held_out=checked.held_out.prompts if checked.held_out else (),
            sampler=Sampler(len(checked.prompts.prompts), config.trainer.prompts_per_step, config.seed),
            policy=policy,
            optimizer=optimizer,
            ledger=Ledger(),
            successes=Successes(config.algorithm.rescue),
            probe=probe,
            yardstick=yardstick,
        )


def _load_policy(checked: Checked, world: World) -> tuple[Policy, bool]:
    """The sharded policy with the checkpoint's weights, and whether its rotary table could be compared with the configuration."""
    config = checked.config
    if world.device.type == "cpu" and config.trainer.cpu_threads:
        torch.set_num_threads(config.trainer.cpu_threads)
    seed_everything(config.seed, config.deterministic)
    dtype = getattr(torch, config.model.dtype)
    policy = shard(Policy(build_model(checked.model.folder, config.rope)), world.mesh, dtype)
    if world.device.type == "cuda":
        total = torch.cuda.get_device_properties(world.device).total_memory
        tokens = max(config.trainer.tokens_per_pack, max_model_len(config))
        activations = activation_bytes(policy.model.config, tokens, dtype.itemsize, config.model.gradient_checkpointing)
        fraction = config.rollout.gpu_memory_fraction if checked.engine == "vllm" else 0.0
        check_memory(count_parameters(policy), world.size, fraction, total, activations)
    load_weights(policy.model, checked.model.folder, world.device)
    angles = check_rope("trainer", resolve_rope(checked.model.folder, config.rope), partial(rotary_table, policy.model, dtype=dtype))
    if config.model.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.model.fused_modules and world.device.type == "cuda" and can_fuse(policy.model):
        fuse_modules(policy.model)
    return policy, angles is not None


def _compare(checked: Checked, rooms: EngineRooms, policy: Policy, rotary: bool) -> tuple[Probe, Yardstick]:
    """The probe of later syncs, and its yardstick: engine and trainer have each read the base model, and nothing was published yet."""
    config, prompts = checked.config, checked.prompts.prompts
    probe = make_probe(prompts, config.seed, config.longest_response)
    yardstick = take_yardstick(measure_gap(rooms.engine, policy, probe, rooms.world), config.sync, config.model.dtype)
    if not rotary or rooms.engine.rotary_table([0]) is None:
        far = make_far_probe(prompts, config.seed, max_model_len(config))
        check_far_gap(measure_gap(rooms.engine, policy, far, rooms.world), config.sync, config.model.dtype)
    return probe, yardstick


@contextmanager
def open_engine_rooms(checked: Checked, world: World, stop: StopRequest) -> Iterator[EngineRooms]:
    """Start engine and grader, with the weights of the checkpoint; closed again in reverse order."""
    config = checked.config
    length = max_model_len(config)
    with stop.at_once():
        engine = create_engine(config.rollout, checked.model.folder, config.model, max_model_len=length, seed=config.seed, rope=config.rope)
    try:
        with stop.at_once():
            thinking = settle_thinking(config, checked.prompts.prompts, checked.model.folder, checked.tokenizer, engine, world)
        console = Console(world.is_main, config.steps)
        console.note(str(thinking))
        with GraderPool(config.reward.workers, config.reward.timeout_s, thinking.required) as grader:
            yield EngineRooms(
                config=replace(config, reward=replace(config.reward, require_thinking=thinking.required)),
                world=world,
                tokenizer=checked.tokenizer,
                engine=engine,
                grader=grader,
                console=console,
                stop=stop,
            )
    finally:
        engine.close()


def max_model_len(config: RunConfig) -> int:
    """Tokens of the longest sequence before the final evaluation."""
    return config.data.max_prompt_tokens + config.longest_response


def open_recorder(config: RunConfig, folder: RunFolder, world: World, step: int) -> Recorder:
    """Metrics of later steps than `step` are dropped: they will be made again."""
    metrics = MetricsFile(folder.metrics)
    if world.is_main:
        metrics.truncate_after(step)
    return Recorder(
        active=world.is_main,
        metrics=metrics,
        rollouts=RolloutRecorder(folder.path),
        trackers=open_trackers(config, folder.path, step + 1) if world.is_main else [],
    )


def banner(checked: Checked, rooms: Rooms, folder: RunFolder, state: TrainState) -> dict[str, str]:
    """What runs here, for the console."""
    device = torch.cuda.get_device_name(rooms.world.device) if rooms.world.device.type == "cuda" else "CPU"
    facts = {"config": checked.file} if checked.file else {}
    facts |= {
        "model": f"{checked.config.model.path} ({count_parameters(rooms.policy) / 1e6:.1f}M parameters, {checked.config.model.dtype})",
        "prompts": _describe(checked.config.data.path, checked.prompts),
        "held out": _describe(checked.config.eval.path, checked.held_out) if checked.held_out else "none (eval.path is empty)",
        "engine": f"{checked.engine}, {rooms.world.size // checked.config.rollout.tensor_parallel} in all",
        "device": f"{device}, {rooms.world.size} rank{'s' if rooms.world.size > 1 else ''}",
        "run": str(folder.path),
    }
    facts |= {"begins with": str(checked.origin)} if checked.origin else {}
    asked = answer_format.forms(prompt.text for prompt in checked.prompts.prompts)
    if asked.keys() - {answer_format.BOX, answer_format.NOTHING}:
        facts["answers"] = f"asked for in {answer_format.in_words(asked)}; only boxes are graded: set {answer_format.REMEDY}"
    facts |= _data_errors(checked.config.data.path, checked.prompts)
    facts |= _data_errors(checked.config.eval.path, checked.held_out) if checked.held_out else {}
    facts |= {"resumed": f"from step {state.step}"} if state.step else {}
    torn = sorted(step for step in layout.step_folders(folder.checkpoints) if step > state.step)
    facts |= {"incomplete": f"the checkpoints of steps {torn}, which are left out"} if torn else {}
    changes = {"changed, not for results": folder.changes.free, "changed": folder.changes.altering}
    return facts | {name: f"from step {state.step + 1} on: {'; '.join(found)}" for name, found in changes.items() if found}


def _describe(path: str, prompts: PromptSet) -> str:
    reasons = (
        (prompts.repeated, "repeated"),
        (prompts.too_long, "over-long"),
        (prompts.ungradable, "without a gradable answer"),
        (prompts.overlapping, "also in an evaluation set"),
    )
    dropped = ", ".join(f"{count} {reason} dropped" for count, reason in reasons if count)
    return f"{len(prompts.prompts)} from {path}" + (f" ({dropped})" if dropped else "")


def _data_errors(path: str, prompts: PromptSet) -> dict[str, str]:
    return {f"errors in {path}": f"{ungradable_rows(prompts.rejected)}; see `polaris data check {path}`"} if prompts.rejected else {}
