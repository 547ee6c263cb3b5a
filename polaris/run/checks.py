"""Everything that can be wrong with a configuration, found before anything takes time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transformers import PreTrainedTokenizerBase

from polaris import doors
from polaris.algorithm.advantages import check_advantage
from polaris.checkpoint.branch import DEFAULT_START, Start, begin
from polaris.checkpoint.run_folder import Origin, RunFolder, check_changes, open_run
from polaris.config.load import dump_config
from polaris.config.own_code import own_code
from polaris.config.schema import RunConfig
from polaris.data.digest import digest, fingerprint
from polaris.data.prompt_sets import load_held_out, load_training
from polaris.data.prompts import PromptSet
from polaris.data.reading import in_words
from polaris.data.sampler import open_sampler, open_statistics
from polaris.distributed.mesh import World
from polaris.distributed.shared import check_same, check_shared
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.learn.eight_bit import check_optimizer
from polaris.learn.objective import check_loss
from polaris.model.check import check_checkpoint
from polaris.model.identity import model_identity
from polaris.model.load import ModelFacts, load_tokenizer, locate_model
from polaris.model.rope import resolve_rope
from polaris.observe.trackers.table import check_trackers
from polaris.reward.rewards import check_columns, checked_rewards, ungradable
from polaris.rollout.checkpoint import check_vocabulary, stop_tokens
from polaris.rollout.engine import check_engine, check_model
from polaris.run.hooks import check_hooks
from polaris.sampling.episode import load_episode
from polaris.stop import is_main
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A configuration that passed all checks, and what they have read."""

    config: RunConfig
    engine: str
    model: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptSet
    held_out: PromptSet | None
    origin: Origin | None = None
    """The other run that this one begins with."""
    file: str = ""
    """Where the configuration was read from, for the console."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """Digests of model and prompts, by which a resumed run is recognised; on rank 0 only."""


def _check_store(servers: Sequence[str]) -> None:
    """Raise `Refused` where servers outside the job cannot reach the store in which they meet the trainers."""
    if servers and "MASTER_ADDR" not in os.environ:
        raise Refused("rollout.servers meet the job in torchrun's store; start it with `torchrun --nproc-per-node=1 -m polaris.train`")
    host = os.environ.get("MASTER_ADDR", "")
    if _is_here(host) and (far := [url for url in servers if not _is_here(urlsplit(url).hostname or "")]):
        raise Refused(f"{far[0]} cannot reach torchrun's store at {host}; give torchrun this machine's address as --master-addr")


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def check_ranks(checked: Checked, folder: RunFolder, world: World) -> None:
    """Raise `Refused` unless all ranks share the run's folder and have read the same configuration and prompts."""
    if world.size == 1:
        return
    check_shared(folder.path, world)
    facts = {"the configuration": dump_config(checked.config), in_words(checked.config.data): digest(checked.prompts.prompts)}
    if checked.held_out is not None:
        facts |= {"the held-out prompts": digest(checked.held_out.prompts)}
    check_same(facts, world)


def check_served_apart(config: RunConfig, engine: str) -> None:
    """Raise `Refused` where the engine cannot hold adapters beside the model's weights."""
    rollout = config.rollout
    unfit = {
        f"rollout.engine = {engine!r}": engine != "vllm",
        'rollout.placement = "separate"': rollout.placement == "separate",
        f"rollout.tensor_parallel = {rollout.tensor_parallel}": rollout.tensor_parallel > 1,
    }
    if config.model.lora.served_apart and any(unfit.values()):
        raise Refused(
            'model.lora.sync = "adapter" needs a vLLM engine of its own beside each rank, and this run has '
            f'{next(name for name, found in unfit.items() if found)}; set model.lora.sync to "merged"'
        )


CheckLater = Callable[[RunConfig, Path], None]
"""Checks configuration and checkpoint folder for what comes after training."""


def prepare(config: RunConfig, start: Start = DEFAULT_START, check_later: CheckLater | None = None) -> tuple[Checked, RunFolder]:
    """Check everything and open the run's folder. Raises `ValueError` with the remedy."""
    checked, main = examine(config, start, check_later), is_main()
    checked = replace(checked, content=_content(checked) if main else {})
    return checked, open_run(checked.config, start.fresh, main, change=start.change, content=checked.content)


def examine(config: RunConfig, start: Start, check_later: CheckLater | None) -> Checked:
    """Check everything but the run's own folder, which is left alone. Raises `ValueError` with the remedy."""
    config, origin = begin(config, start)
    checked = check(config)
    if check_later is not None:
        check_later(config, checked.model.folder)
    return replace(checked, origin=origin)


def check_folder(checked: Checked, start: Start) -> None:
    """Raise `Refused` where `prepare` would for a run that is there; nothing is written."""
    if not start.fresh:
        check_changes(checked.config, RunFolder(checked.config.folder), start.change, _content(checked))


def _content(checked: Checked) -> dict[str, Any]:
    prompts, held_out = checked.prompts.prompts, checked.held_out
    passes = {"passes": fingerprint(prompt.passes for prompt in prompts)} if checked.config.difficulty.column is not None else {}
    return {
        "engine": checked.engine,
        "model": model_identity(checked.model.folder),
        "prompts": _identity(prompts) | passes,
        "held_out": _identity(held_out.prompts) if held_out else None,
        "code": {key: [doors.digest(name, key) for name in names] for key, names in own_code(checked.config).items()},
    }


def _identity(prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"prompts": len(prompts), "digest": digest(prompts)}


def check(config: RunConfig) -> Checked:
    """Everything that can be wrong with a configuration, found before any weight is read.

    Raises:
        ValueError: with the remedy.
    """
    config.check_ranks(int(os.environ.get("WORLD_SIZE", "1")))
    check_optimizer(config.optimizer)
    _check_store(config.rollout.servers)
    engine = check_engine(config.rollout)
    check_served_apart(config, engine)
    if is_main():
        check_trackers(config)
        check_hooks(config.run.hooks)
    check_advantage(config.algorithm.advantage, config.trainer.prompts_per_step, config.rollout.samples_per_prompt)
    check_loss(config.algorithm)
    load_episode(config.rollout.episode)
    model = locate_model(replace(config.model, path=resolve(config.model.path)))
    check_checkpoint(model.folder, config.rope, max_model_len(config), config.distributed.sequence_parallel, config.model.lora)
    config.check_positions(resolve_rope(model.folder, config.rope).max_positions)
    stop_tokens(model.folder)
    rewards = checked_rewards(config.reward)
    gold = partial(ungradable, rewards)
    tokenizer = load_tokenizer(model.folder, config.model.chat_template)
    prompts = load_training(config, tokenizer, gold)
    open_sampler(prompts.prompts, config, open_statistics(prompts.prompts, config.curriculum))
    held_out = load_held_out(config, prompts, tokenizer, gold)
    everything = (*prompts.prompts, *(held_out.prompts if held_out else ()))
    check_columns(rewards, [(prompt.row, prompt.source) for prompt in everything])
    tokens = [prompt.tokens for prompt in everything]
    check_vocabulary(tokens, model.vocab_size, tokenizer)
    check_model(config.rollout, model.folder, config.model, max_model_len=max_model_len(config), rope=config.rope)
    return Checked(config=config, engine=engine, model=model, tokenizer=tokenizer, prompts=prompts, held_out=held_out)


def max_model_len(config: RunConfig) -> int:
    """Tokens of the longest sequence before the final evaluation."""
    return config.data.max_prompt_tokens + config.longest_response
