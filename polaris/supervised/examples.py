"""Sets of conversations as examples: read, masked, held out; and which of them a step trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from polaris.config.sft import SftConfig
from polaris.data.conversations import Example, check_tokenizer, encode, read_conversation
from polaris.data.digest import fingerprint
from polaris.data.reading import Reading
from polaris.data.sources import read_rows
from polaris.doors import short
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.learn.packing import TrainingSample
from polaris.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """The examples of `rows` rows, without the `too_long` and the `empty` ones, in which nothing is trained on; and those held out."""

    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    rows: int
    too_long: int
    empty: int

    def __str__(self) -> str:
        tokens, trained = (sum(map(count, self.examples)) for count in (lambda one: len(one.tokens), lambda one: one.trained))
        dropped = [f"{count} {why}" for count, why in ((self.too_long, "over-long"), (self.empty, "without a trained turn")) if count]
        said = f"{len(self.examples):,} of {self.rows:,} rows, {tokens:,} tokens, {trained:,} of them trained on"
        return said + (f"; dropped: {', '.join(dropped)}" if dropped else "")


def load_examples(config: SftConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[ExampleSet, ExampleSet | None]:
    """The examples to train on, and those of eval.path. Raises `ValueError` for bad rows, and where nothing is left."""
    check_tokenizer(tokenizer, config)
    data, evaluation = config.data, config.eval
    own = Reading(subset=data.subset, options=data.options)
    trained = _load(config, data.path, data.split, own, data.columns, tokenizer, evaluation.fraction)
    if evaluation.path is None:
        return trained, None
    reading = Reading(key="eval", subset=evaluation.subset, options=evaluation.options)
    columns = data.columns if evaluation.columns is None else evaluation.columns
    return trained, _load(config, evaluation.path, evaluation.split, reading, columns, tokenizer, None)


def _load(
    config: SftConfig,
    path: str,
    split: str,
    reading: Reading,
    columns: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
    fraction: float | None,
) -> ExampleSet:
    found: tuple[list[Example], list[Example]] = ([], [])
    rows, too_long, empty = 0, 0, 0
    for source, row in read_rows(resolve(path), split, reading):
        rows += 1
        conversation = read_conversation(row, source, columns)
        examples = [one for one in encode(conversation, tokenizer, config.data) if one.trained]
        empty += not examples
        fitting = [one for one in examples if len(one.tokens) <= config.data.max_tokens]
        too_long += len(fitting) < len(examples)
        out = fraction is not None and conversation.held_out(fraction, config.seed)
        found[out].extend(fitting)
    if fraction is not None and found[1] and not found[0]:
        raise Refused(f"{short(path)}: eval.fraction = {fraction:g} holds all of its {len(found[1])} examples out; lower it")
    if not found[0]:
        raise Refused(
            f"{short(path)}: none of its {rows} rows can be trained on ({too_long} exceed data.max_tokens = {config.data.max_tokens}, "
            f"{empty} have no turn of {', '.join(config.data.train_on)}); correct data.max_tokens or data.train_on"
        )
    if fraction is not None and not found[1]:
        raise Refused(f"{short(path)}: eval.fraction = {fraction:g} holds none of its {rows} rows out; raise it")
    return ExampleSet(examples=tuple(found[0]), held_out=tuple(found[1]), rows=rows, too_long=too_long, empty=empty)


def digest(examples: Sequence[Example]) -> str:
    """32 hexadecimal digits of the tokens and masks, in their order."""
    return fingerprint((one.tokens.tobytes(), one.mask.tobytes()) for one in examples)


def batch(examples: Sequence[Example], seed: int, seen: int, most: int) -> list[Example]:
    """Up to `most` examples after the first `seen` ones of the run. Every epoch takes each once, in an order of its own.

    It depends on nothing else, so a resumed run needs only `seen`.
    """
    epoch, place = divmod(seen, len(examples))
    chosen: list[int] = []
    while len(chosen) < most:
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        chosen += islice(order.tolist(), place, place + most - len(chosen))
        epoch, place = epoch + 1, 0
    return [examples[index] for index in chosen]


def as_sample(example: Example) -> TrainingSample:
    """The example as what packs hold: tokens up to the first trained one are the prompt; of the rest, the mask says which count."""
    first = 1 + int(np.argmax(example.mask[1:]))
    tokens = example.tokens[first:]
    rollout = Rollout(
        prompt_id=example.source,
        sample=0,
        tokens=tokens,
        logprobs=np.zeros(len(tokens), dtype=np.float32),
        versions=np.zeros(len(tokens), dtype=np.int32),
        finish_reason="stop",
        temperature=1.0,
        seed=0,
        mask=example.mask[first:],
    )
    return TrainingSample(prompt_tokens=tuple(example.tokens[:first].tolist()), rollout=rollout, advantage=1.0)
