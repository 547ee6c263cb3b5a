"""What a run consists of, as the console shows it at start."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

import torch

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.job import JobConfig
from polaris.config.model import MemoryConfig, ModelConfig
from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.config.training import DistributedConfig, OptimizerConfig
from polaris.data import answer_format
from polaris.data.prompts import PromptSet, ungradable_rows
from polaris.data.reading import in_words, training_sources
from polaris.data.sampler import parts_of_epoch, weights_of
from polaris.distributed.mesh import World
from polaris.doors import short
from polaris.model.load import describe_parameters
from polaris.reward.functions import named
from polaris.reward.rewards import VERDICTS
from polaris.run.checks import Checked
from polaris.run.context import TrainContext
from polaris.run.phases import phases

_SWITCHES = ("difficulty.samples_per_prompt", "curriculum.target", "reward.process.most", "final.suite")
"""The value without which each of these sections does nothing."""


def banner(checked: Checked, context: TrainContext, folder: RunFolder, state: TrainState) -> dict[str, str]:
    """Facts of a run by name; those of resumed and changed runs included."""
    world, parameters = context.sampling.world, describe_parameters(context.learner.policy)
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    facts = configured(checked, world.job.size)
    facts["model"] = f"{checked.config.model.path} ({parameters}, {checked.config.model.dtype})"
    ranks = f"{world.size} {'trainer' if world.engines else 'rank'}{'s' if world.size > 1 else ''}"
    facts["device"] = f"{device}, {ranks}"
    facts["attention"] = context.learner.policy.attention
    facts |= halved(world)
    facts["run"] = str(folder.path)
    facts |= {"begins with": str(checked.origin)} if checked.origin else {}
    facts |= {"resumed": f"from step {state.step}"} if state.step else {}
    torn = sorted(step for step in layout.step_folders(folder.checkpoints) if step > state.step)
    facts |= {"incomplete": f"the checkpoints of steps {torn}, which are left out"} if torn else {}
    changes = {"changed, no effect on results": folder.changes.free, "changed": folder.changes.altering}
    return facts | {name: f"from step {state.step + 1} on: {'; '.join(found)}" for name, found in changes.items() if found}


def configured(checked: Checked, ranks: int) -> dict[str, str]:
    """Facts of a configuration by name, as its checks have found them."""
    config, fraction = checked.config, checked.config.eval.fraction
    held_out = short(config.eval.path or f"the same (eval.fraction = {fraction or 0:g})")
    facts = {"config": checked.file} if checked.file else {}
    facts |= {
        "model": f"{config.model.path} ({config.model.dtype})",
        "prompts": _describe(_sets(checked), checked.prompts),
        "held out": _describe(held_out, checked.held_out) if checked.held_out else "none (neither eval.path nor eval.fraction)",
        "engine": _engines(checked, ranks),
    }
    facts |= memory(config)
    if named(config.reward):
        facts["reward"] = _reward(config.reward)
    asked = answer_format.forms(prompt.text for prompt in checked.prompts.prompts)
    form = answer_format.graded(config.reward)
    if form == answer_format.BOX and _looks_for_answers(config) and asked.keys() - {form, answer_format.NOTHING}:
        facts["answers"] = f"asked for in {answer_format.in_words(asked)}; only boxes are graded: set {answer_format.REMEDY}"
    facts |= phases(config, len((checked.held_out or checked.prompts).prompts))
    facts |= _trained_on_too(checked) | _left_out(config) | _data_errors(in_words(config.data), checked.prompts)
    return facts | (_data_errors(held_out, checked.held_out) if checked.held_out else {})


def halved(world: World) -> dict[str, str]:
    """That packs are smaller than configured, where a restart has made them so."""
    share = f"1/{2**world.halvings} of trainer.tokens_per_pack"
    return {"packs": f"{share}, since a GPU's memory was exhausted before this restart"} if world.halvings else {}


def memory(config: JobConfig) -> dict[str, str]:
    """The rungs of docs/memory.md that are not where they are by default; nothing if there are none."""
    sections = {"memory": MemoryConfig(), "optimizer": OptimizerConfig(), "distributed": DistributedConfig(), "model": ModelConfig()}
    shared = ("distributed.sequence_parallel", "distributed.replicas", "distributed.reshard")
    words = []
    for rung in ("memory.activations", "memory.optimizer", "optimizer.name", *shared, "model.compile"):
        section, _, name = rung.partition(".")
        value = getattr(getattr(config, section), name)
        if value != getattr(sections[section], name):
            words.append(f"{section if name == 'name' else name} {value}")
    if config.model.compile:
        words[-1] += ", so that the first packs take long"
    return {"memory": ", ".join(words)} if words else {}


def _engines(checked: Checked, ranks: int) -> str:
    """How many engines there are, and where they are not beside the trainers."""
    rollout = checked.config.rollout
    if rollout.placement == "colocated":
        return f"{checked.engine}, {ranks // rollout.tensor_parallel} in all"
    first, last = ranks - rollout.engine_ranks, ranks - 1
    where = f"on rank {last} alone" if first == last else f"on ranks {first} to {last} alone"
    servers = f"{len(rollout.servers)} on {'a server' if len(rollout.servers) == 1 else 'servers'} outside the job"
    where = ", ".join([where] * bool(rollout.engine_ranks) + [servers] * bool(rollout.servers))
    count = rollout.engine_ranks // rollout.tensor_parallel + len(rollout.servers)
    most = f"at most {rollout.max_staleness} {'step' if rollout.max_staleness == 1 else 'steps'}"
    ahead = f"{most} ahead of training" if rollout.max_staleness else "in turns with training"
    return f"{checked.engine}, {count} in all, {where}, {ahead}"


def _trained_on_too(checked: Checked) -> dict[str, str]:
    """Held-out prompts that are the same text as one of training."""
    trained, held_out = {prompt.text for prompt in checked.prompts.prompts}, checked.held_out.prompts if checked.held_out else ()
    both = sum(prompt.text in trained for prompt in held_out)
    remedy = "name their set in data.decontaminate, which leaves them out of training"
    return {"overlap": f"{both} of {len(held_out)} held-out prompts are also trained on; {remedy}"} if both else {}


def _left_out(config: RunConfig) -> dict[str, str]:
    """Sections that have values, but not the one without which nothing is done."""
    off = []
    for switch in _SWITCHES:
        section, _, name = switch.rpartition(".")
        values = attrgetter(section)(config)
        off += [f"[{section}], since it has no {name}"] if not getattr(values, name) and values != type(values)() else []
    return {"left out": "; ".join(off)} if off else {}


def _sets(checked: Checked) -> str:
    """The places of the prompts; of several sets, how many prompts each has, and how many an epoch takes where they have weights."""
    sources = training_sources(checked.config.data)
    if len(sources) == 1:
        return short(sources[0].path)
    sizes = Counter(prompt.set for prompt in checked.prompts.prompts)
    parts, weights = parts_of_epoch(sizes, found := weights_of(checked.config)), bool(found)
    return ", ".join(f"{one.name} ({sizes[one.name]}{f', {parts[one.name]} an epoch' if weights else ''})" for one in sources)


def _reward(reward: RewardConfig) -> str:
    """The rewards with their weights, and what makes a response solved."""
    weights = reward.weights
    names = [short(name) if len(weights) == 1 else f"{weight:g} x {short(name)}" for name, weight in weights.items()]
    first = next(iter(weights))
    above = reward.success_above
    if first in VERDICTS or (first == "reasoning_gym" and above is None):
        return ", ".join(names)
    solved = "1 is solved, 0 is not; for other numbers set reward.success_above" if above is None else f"above {above:g} is solved"
    return f"{', '.join(names)} ({solved})"


def _looks_for_answers(config: RunConfig) -> bool:
    return not {"math", "exact", "reasoning_gym"}.isdisjoint(config.reward.weights)


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
