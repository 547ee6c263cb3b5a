"""A short supervised training that gives the embedded base model its weak command of the task."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from polaris.embedded.task import Problem, demonstrations

STEPS = 350
BATCH = 64
MUON_LR = 2e-2
ADAM_LR = 4e-3
SEED = 1234
_SORTED_TOGETHER = 8
_IGNORED = -100


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3 of about 0.8 M parameters."""
    vocabulary = -(-len(tokenizer) // 64) * 64
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )


def _encode(tokenizer: PreTrainedTokenizerFast, problem: Problem, response: str) -> tuple[list[int], list[int]]:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem.text}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    answer = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
    return prompt + answer, [_IGNORED] * len(prompt) + answer


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, excluded: frozenset[Problem]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (tokens, labels) pairs [B, T], right-padded; rows of similar length share a batch."""
    rng = random.Random(seed)
    pairs = demonstrations(seed, excluded)
    while True:
        rows = sorted((_encode(tokenizer, *pair) for pair in islice(pairs, _SORTED_TOGETHER * BATCH)), key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), BATCH))
        rng.shuffle(starts)
        for start in starts:
            tokens, labels = zip(*rows[start : start + BATCH], strict=True)
            yield _pad(list(tokens), int(tokenizer.pad_token_id)), _pad(list(labels), _IGNORED)


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(os.cpu_count() or 1, 4))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimizers(model: Qwen3ForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, weight_decay=0.01)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, MUON_LR), (adam, ADAM_LR)]


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20, (steps - step) / (0.4 * steps))


def train(tokenizer: PreTrainedTokenizerFast, excluded: frozenset[Problem], steps: int = STEPS) -> Qwen3ForCausalLM:
    """Train a new model for a fixed number of steps; the same seed and thread count give the same bits.

    Problems in `excluded` are never shown. The caller's random state is left alone.
    """
    with torch.random.fork_rng(devices=[]), _threads():
        torch.manual_seed(SEED)
        model = new_model(tokenizer).train()
        optimizers = _optimizers(model)
        began = time.monotonic()
        for step, (tokens, labels) in enumerate(islice(batches(tokenizer, SEED, excluded), steps)):
            for optimizer, peak in optimizers:
                optimizer.param_groups[0]["lr"] = peak * _schedule(step, steps)
            logits = model(tokens[:, :-1], use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if (step + 1) % 50 == 0 or step + 1 == steps:
                print(f"\rembedded model: step {step + 1}/{steps}, loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", end="", flush=True)
        print(flush=True)
    return model.eval()
