"""Everything that can be wrong with a fine-tuning, found before any weight is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from polaris.checkpoint.branch import Start, begin
from polaris.checkpoint.run_folder import Origin, RunFolder, check_changes, open_run
from polaris.config.load import dump_config
from polaris.config.sft import SftConfig
from polaris.data.conversations import Example
from polaris.distributed.mesh import World
from polaris.distributed.shared import check_same, check_shared
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.learn.eight_bit import check_optimizer
from polaris.model.check import check_checkpoint
from polaris.model.identity import model_identity
from polaris.model.load import ModelFacts, load_tokenizer, locate_model
from polaris.model.rope import resolve_rope
from polaris.observe.trackers.table import check_trackers
from polaris.rollout.checkpoint import check_vocabulary
from polaris.stop import is_main
from polaris.supervised.examples import ExampleSet, digest, load_examples


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSft:
    """A configuration that passed all checks, and what they have read."""

    config: SftConfig
    model: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    data: ExampleSet
    held_out_set: ExampleSet | None
    origin: Origin | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    """Digests of model and examples, by which a resumed run is recognised; on rank 0 only."""

    @property
    def held_out(self) -> tuple[Example, ...]:
        return self.held_out_set.examples if self.held_out_set else self.data.held_out

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.config.steps(len(self.data.examples))


def examine(config: SftConfig, fresh: bool = False) -> CheckedSft:
    """Check everything but the run's own folder. Raises `ValueError` with the remedy."""
    config, origin = begin(config, Start(fresh=fresh))
    config.check_trainers(int(os.environ.get("WORLD_SIZE", "1")))
    check_optimizer(config.optimizer)
    if is_main():
        check_trackers(config)
    model = locate_model(replace(config.model, path=resolve(config.model.path)))
    longest = config.data.max_tokens
    check_checkpoint(model.folder, config.rope, longest, config.distributed.sequence_parallel, config.model.lora)
    tokenizer = load_tokenizer(model.folder, config.model.chat_template)
    data, held_out_set = load_examples(config, tokenizer)
    checked = CheckedSft(config=config, model=model, tokenizer=tokenizer, data=data, held_out_set=held_out_set, origin=origin)
    positions = resolve_rope(model.folder, config.rope).max_positions
    everything = (*data.examples, *checked.held_out)
    if (found := max(len(one.tokens) for one in everything)) > positions:
        raise Refused(f"a conversation of {found} tokens exceeds the model's {positions} positions; set data.max_tokens = {positions}")
    check_vocabulary([one.tokens.tolist() for one in everything], model.vocab_size, tokenizer)
    return checked


def prepare(config: SftConfig, fresh: bool, change: bool) -> tuple[CheckedSft, RunFolder]:
    """Check everything and open the run's folder. Raises `ValueError` with the remedy."""
    checked, main = examine(config, fresh), is_main()
    checked = replace(checked, content=_content(checked) if main else {})
    return checked, open_run(checked.config, fresh, main, change=change, content=checked.content)


def check_folder(checked: CheckedSft, fresh: bool, change: bool) -> None:
    """Raise `Refused` where `prepare` would for a run that is there; nothing is written."""
    if not fresh:
        check_changes(checked.config, RunFolder(checked.config.folder), change, _content(checked))


def _content(checked: CheckedSft) -> dict[str, Any]:
    held_out = digest(checked.held_out) if checked.held_out else None
    return {"model": model_identity(checked.model.folder), "examples": digest(checked.data.examples), "held_out": held_out}


def check_ranks(checked: CheckedSft, folder: RunFolder, world: World) -> None:
    """Raise `Refused` unless all ranks share the run's folder and have read the same configuration and examples, held-out ones too."""
    if world.size == 1:
        return
    check_shared(folder.path, world)
    facts = {"the configuration": dump_config(checked.config), "the examples": digest(checked.data.examples)}
    check_same(facts | {"the held-out examples": digest(checked.held_out)}, world)
