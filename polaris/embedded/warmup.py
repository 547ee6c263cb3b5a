"""A short supervised training that gives the embedded base model its weak command of the task."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from polaris.embedded.task import Problem, demonstrations

STEPS = 500
BATCH = 32
MUON_LR, ADAM_LR = 2e-2, 4e-3
SEED = 1234
_BATCHES_SORTED_TOGETHER = 8
_IGNORED = -100


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3 of 0.78 M parameters."""
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def _encode(tokenizer: PreTrainedTokenizerFast, problem: Problem, response: str) -> tuple[list[int], list[int]]:
    user = {"role": "user", "content": problem.text}
    prompt = tokenizer.encode(str(tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False)))
    answer = tokenizer.encode(f"{response}{tokenizer.eos_token}")
    return prompt + answer, [_IGNORED] * len(prompt) + answer


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, excluded: frozenset[Problem]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (tokens, labels) pairs [BATCH, T], right-padded; rows of similar length share a batch."""
    rng = random.Random(seed)
    pairs = demonstrations(seed, excluded)
    while True:
        rows = [_encode(tokenizer, problem, response) for problem, response in islice(pairs, _BATCHES_SORTED_TOGETHER * BATCH)]
        rows.sort(key=lambda row: len(row[0]))
        for start in rng.sample(range(0, len(rows), BATCH), _BATCHES_SORTED_TOGETHER):
            batch = rows[start : start + BATCH]
            yield _pad([tokens for tokens, _ in batch], tokenizer.pad_token_id), _pad([labels for _, labels in batch], _IGNORED)


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(os.cpu_count() or 1, 4))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimizers(model: Qwen3ForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    # Muon learns the arithmetic in half of AdamW's steps; it is meant for hidden matrices only.
    parameters = [(p.ndim == 2 and "embed" not in name, p) for name, p in model.named_parameters()]
    muon = torch.optim.Muon([p for hidden, p in parameters if hidden], weight_decay=0.01)
    adam = torch.optim.AdamW([p for hidden, p in parameters if not hidden], betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, MUON_LR), (adam, ADAM_LR)]


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20, (steps - step) / (0.4 * steps))


def _progress(step: int, steps: int, loss: float, seconds: float) -> None:
    live = sys.stderr.isatty()
    if live or step % 100 == 0:
        start, end = ("\r" if live else ""), ("" if live and step < steps else "\n")
        print(f"{start}building the embedded model (once): step {step}/{steps}, loss {loss:.3f}, {seconds:.0f} s", end=end, file=sys.stderr)


def train(tokenizer: PreTrainedTokenizerFast, excluded: frozenset[Problem], steps: int = STEPS) -> Qwen3ForCausalLM:
    """Train a new model for `steps` steps; on one machine the same steps give the same bits.

    Problems in `excluded` are never shown. The caller's random state and thread count are left as they were.
    """
    with torch.random.fork_rng(devices=[]), _threads():
        torch.manual_seed(SEED)
        model = new_model(tokenizer).train()
        optimizers = _optimizers(model)
        began = time.monotonic()
        for step, (tokens, labels) in enumerate(islice(batches(tokenizer, SEED, excluded), steps)):
            logits = model(tokens[:, :-1], use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, peak in optimizers:
                optimizer.param_groups[0]["lr"] = peak * _schedule(step, steps)
                optimizer.step()
                optimizer.zero_grad()
            if (step + 1) % 25 == 0 or step + 1 == steps:
                _progress(step + 1, steps, loss.item(), time.monotonic() - began)
    return model.eval()
