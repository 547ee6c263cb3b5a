"""The composition root: from a checked configuration to the objects that sample and train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.load import dump_config
from polaris.data.pass_rates import PassRates
from polaris.data.plateau import Plateau
from polaris.data.sampler import open_sampler, open_statistics
from polaris.distributed.mesh import World
from polaris.learn.core import ResultSets
from polaris.learn.curate import teaching
from polaris.learn.learner import Learner
from polaris.learn.optimizer import build_optimizer
from polaris.learn.reference import Reference, load_reference
from polaris.learn.success_buffer import SuccessBuffer
from polaris.model.policy import Policy
from polaris.model.rope import resolve_rope
from polaris.observe.console import Console
from polaris.observe.metrics import MetricsFile, read_records
from polaris.observe.samples import RolloutRecorder
from polaris.observe.trackers.table import make_trackers
from polaris.plan.setup import Engines
from polaris.reward.rewards import Rewards
from polaris.rollout.engine import create_engine
from polaris.rollout.server_engine import ServerEngine
from polaris.rollout.types import Engine
from polaris.run.alarms import Alarms
from polaris.run.checks import Checked, max_model_len
from polaris.run.context import TrainContext
from polaris.run.hooks import Hooks, load_hooks
from polaris.run.load_policy import fuse, load_policy
from polaris.run.loop import Recorder
from polaris.run.profiler import open_profiler
from polaris.run.thinking import settle_thinking
from polaris.run.tracker import TemperatureTracker
from polaris.sampling.clock import Clock
from polaris.sampling.colocated import Colocated
from polaris.sampling.context import Reporter, SamplingContext
from polaris.sampling.episode import load_episode
from polaris.sampling.remote import RemoteEngines
from polaris.sampling.separate import Separate
from polaris.stop import StopRequest
from polaris.sync.challenge import challenge
from polaris.sync.probe import check_far_gap, make_far_probe, make_sync_probe, take_yardstick
from polaris.sync.publish import SyncProof, measure_gap


@contextmanager
def open_training(checked: Checked, world: World, stop: StopRequest) -> Iterator[TrainContext]:
    """Load the model, start engine and grader; closed again in reverse order."""
    config, prompts = checked.config, checked.prompts.prompts
    console = Console(world.is_main, config.steps)
    with stop.at_once():
        policy, rotary = load_policy(checked.model.folder, config, world, longest=max_model_len(config), engine=_beside(checked, world))
        optimizer = build_optimizer(policy, config.optimizer)
        reference = _load_reference(checked, world, policy) if config.algorithm.kl != "off" else None
    with open_sampling(checked, world, stop, console) as sampling:
        config = sampling.config
        learner = Learner(policy=policy, optimizer=optimizer, config=config, world=world, reference=reference)
        with stop.at_once():
            proof = _prove(checked, sampling, learner, rotary)
        successes, statistics = SuccessBuffer(config.algorithm.rescue), open_statistics(prompts, config.curriculum)
        results = ResultSets(config.reward.process)
        source = (Separate if world.engines else Colocated)(
            context=sampling,
            clock=Clock(console),
            prompts=prompts,
            sampler=open_sampler(prompts, config, statistics),
            proof=proof,
            credited=results.credited,
            teaching=lambda groups, step: teaching(groups, config, successes, step),
            usual_lengths=statistics.usual_lengths,
            last=config.steps,
        )
        if isinstance(engines := sampling.engine, RemoteEngines):
            engines.renew = lambda: source.publish(learner.weights(), engines.version)
        yield TrainContext(
            source=source,
            learner=learner,
            all_prompts=prompts,
            held_out=checked.held_out.prompts if checked.held_out else (),
            pass_rates=PassRates(),
            successes=successes,
            tracker=TemperatureTracker(),
            statistics=statistics,
            plateau=Plateau(config.curriculum.plateau),
            results=results,
            console=console,
            profiler=open_profiler(config.folder, config.observe.profile, world.is_main, console.note),
        )


def _beside(checked: Checked, world: World) -> Engines:
    """The engine on the job's GPUs; neither servers outside it nor one of the user's own are known to the plan."""
    if world.engines:
        return "separate" if checked.config.rollout.engine_ranks else "none"
    return "colocated" if checked.engine == "vllm" else "transformers" if checked.engine == "transformers" else "none"


def _load_reference(checked: Checked, world: World, policy: Policy) -> Reference:
    """The model of model.path, whatever the run is resumed from, as the policy computes it: with adapters, the policy without them."""
    config = checked.config
    if config.model.lora.rank:
        return Reference(policy)
    reference = load_reference(checked.model.folder, config.rope, world, getattr(torch, config.model.dtype))
    fuse(reference.policy, config, world)
    return reference


def _prove(checked: Checked, sampling: SamplingContext, learner: Learner, rotary: bool) -> SyncProof:
    """The proof of later syncs. Engine and trainer have each read the base model, nothing was published yet: their gap is the yardstick."""
    config, prompts = checked.config, checked.prompts.prompts
    probe = make_sync_probe(prompts, config.seed, config.longest_response)
    gap = measure_gap(sampling.engine, probe, learner.logprobs, sampling.world)
    yardstick = take_yardstick(gap, config.sync, config.model.dtype)
    if not rotary or sampling.engine.rotary_table([0]) is None:
        far = make_far_probe(prompts, config.seed, max_model_len(config))
        check_far_gap(measure_gap(sampling.engine, far, learner.logprobs, sampling.world), config.sync, config.model.dtype)
    held = learner.weights if config.model.lora.served_apart else None
    proof = SyncProof(probe=probe, yardstick=yardstick, trainer_logprobs=learner.logprobs, held=held, dtype=config.model.dtype)
    if config.model.lora.rank:
        gap, shift = challenge(sampling.engine, proof, learner.policy, learner.weights, config.seed, sampling.world)
        sampling.console.note(f"adapters reach the engine: on trial they shifted log-probs by {shift:.2g} nats, and it was {gap:.2g} off")
    return proof


@contextmanager
def open_sampling(checked: Checked, world: World, stop: StopRequest, console: Reporter) -> Iterator[SamplingContext]:
    """Start engine and grader, with the weights of the checkpoint; closed again in reverse order."""
    config = checked.config
    with stop.at_once():
        engine = open_engine(checked) if not world.engines else RemoteEngines(world, config, stop, console.warning)
    try:
        with stop.at_once():
            if isinstance(engine, RemoteEngines):
                engine.meet()
            thinking = settle_thinking(config, checked.prompts.prompts, checked.model.folder, checked.tokenizer, engine, world)
        console.note(str(thinking))
        if isinstance(engine, RemoteEngines):
            engine.begin(dump_config(config), thinking.required)
        # Engines on ranks of their own grade there.
        reward = replace(config.reward, workers=1) if world.engines else config.reward
        with Rewards(reward, thinking.required) as grader:
            with stop.at_once():
                grader.wait()
            yield SamplingContext(
                config=replace(config, reward=replace(config.reward, require_thinking=thinking.required)),
                world=world,
                tokenizer=checked.tokenizer,
                engine=engine,
                grader=grader,
                console=console,
                stop=stop,
                peers=None if world.engines else world.neighbours(config.rollout.tensor_parallel),
                episode=load_episode(config.rollout.episode),
            )
    finally:
        engine.close()


def open_engine(checked: Checked) -> Engine:
    """The engine of this rank, with the weights of the checkpoint."""
    config, length = checked.config, max_model_len(checked.config)
    return create_engine(config.rollout, checked.model.folder, config.model, max_model_len=length, seed=config.seed, rope=config.rope)


def open_server(checked: Checked, server: int) -> Engine:
    """A server outside the job, with the weights of the checkpoint."""
    config, folder, length = checked.config, checked.model.folder, max_model_len(checked.config)
    url, rope = config.rollout.servers[server], resolve_rope(folder, config.rope)
    return ServerEngine(url, folder, model=config.model, rollout=config.rollout, max_model_len=length, rope=rope)


def open_recorder(context: TrainContext, folder: RunFolder, step: int) -> Recorder:
    """Metrics of later steps than `step` are dropped: they will be made again. Hooks and trackers start."""
    config, main, metrics = context.config, context.sampling.world.is_main, MetricsFile(folder.metrics)
    if main:
        metrics.truncate_after(step)
    recorder = Recorder(
        active=main,
        console=context.console,
        alarms=Alarms(context.console, read_records(folder.metrics) if main else ()),
        metrics=metrics,
        rollouts=RolloutRecorder(folder.path),
        hooks=Hooks(load_hooks(config.run.hooks) if main else {}),
        trackers=make_trackers(config) if main else [],
    )
    recorder.start(config, folder.path, step + 1)
    return recorder
