"""What both engines read from a checkpoint folder, and their checks of requests and published weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from polaris.errors import Refused
from polaris.model.names import checkpoint_names
from polaris.rollout.types import RolloutRequest


def stop_tokens(folder: str | Path) -> tuple[int, ...]:
    """Every end-of-sequence token that config.json or generation_config.json names, sorted.

    Raises:
        ValueError: no token is named, or one lies outside the vocabulary.
    """
    config = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
    named = [config.eos_token_id]
    if (Path(folder) / "generation_config.json").is_file():
        named.append(GenerationConfig.from_pretrained(folder).eos_token_id)
    flat = {token for entry in named if entry is not None for token in ([entry] if isinstance(entry, int) else entry)}
    if not flat:
        raise Refused(f"{folder}: neither config.json nor generation_config.json names an eos_token_id; add one")
    outside = sorted(token for token in flat if not 0 <= token < config.vocab_size)
    if outside:
        raise Refused(
            f"{folder}: eos_token_id {', '.join(map(str, outside))} of config.json or generation_config.json lies outside the "
            f"model's vocabulary of {config.vocab_size} tokens; set it to the tokenizer's"
        )
    return tuple(sorted(flat))


def expected_weights(folder: str | Path) -> tuple[dict[str, torch.Size], dict[str, str]]:
    """The shape of every parameter of the model, without a tied output head, and its name in a checkpoint."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.tie_weights()
    return {name: parameter.shape for name, parameter in model.named_parameters()}, checkpoint_names(model)


def check_vocabulary(prompts: Iterable[Sequence[int]], vocab_size: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse prompts with tokens that the model has no embedding for, such as those of a chat template added later.

    Raises:
        ValueError: naming such a token.
    """
    largest = max((max(tokens, default=0) for tokens in prompts), default=0)
    if largest >= vocab_size:
        raise Refused(
            f"the tokenizer has {len(tokenizer)} tokens and the model's embedding {vocab_size}: prompts hold {largest} "
            f"({tokenizer.convert_ids_to_tokens(largest)}), which the model does not know. Use the tokenizer that the model was "
            "trained with, or enlarge the model with `resize_token_embeddings(len(tokenizer))` and train the new tokens first"
        )


def check_requests(requests: Sequence[RolloutRequest], max_model_len: int, vocab_size: int) -> None:
    """Refuse prompts that the engine cannot run, before any request runs.

    Raises:
        ValueError: a prompt is empty, too long for any response token, or holds a token outside the vocabulary.
    """
    for request in requests:
        length = len(request.prompt_tokens)
        if not 0 < length < max_model_len:
            raise Refused(
                f"prompt {request.prompt_id} has {length} tokens, the engine takes 1 to {max_model_len - 1}; lower data.max_prompt_tokens"
            )
        if min(request.prompt_tokens) < 0 or max(request.prompt_tokens) >= vocab_size:
            raise Refused(
                f"prompt {request.prompt_id} holds a token outside the model's vocabulary of {vocab_size}; is the tokenizer the model's?"
            )


def complete(weights: Iterable[tuple[str, torch.Tensor]], shapes: dict[str, torch.Size]) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass weights on and check that every parameter comes exactly once: a model with some old weights would sample without an error.

    Raises:
        RuntimeError: a name is unknown, repeated or missing, or a shape differs.
    """
    missing = dict(shapes)
    for name, tensor in weights:
        shape = missing.pop(name, None)
        if shape is None:
            raise RuntimeError(f"published weight {name} is {'sent twice' if name in shapes else 'unknown to the rollout engine'}")
        if tensor.shape != shape:
            raise RuntimeError(f"published weight {name} has shape {tuple(tensor.shape)}, the rollout engine expects {tuple(shape)}")
        yield name, tensor
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(shapes)} weights were not published, such as {next(iter(missing))}")
