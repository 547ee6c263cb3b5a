"""Tiny random models, their log-probs by transformers alone, and short ways to ask an engine."""

import functools

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from polaris.rollout.types import RolloutRequest, Sampling

VOCAB, EOS, MAX_LEN = 128, 1, 400
VLLM = pytest.param("vllm", marks=pytest.mark.vllm)
AHEAD = pytest.param("vllm, ahead", marks=pytest.mark.vllm)
"""Asynchronous scheduling, as on CUDA: a step is scheduled before the tokens of the one before are known."""

ahead_too = pytest.mark.parametrize("kind", ["transformers", VLLM, AHEAD], indirect=True)


def write_model(folder, seed, tied):
    """A random Qwen3 whose next-token distributions are neither flat nor certain."""
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        eos_token_id=EOS,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)


class Models:
    """Folders and transformers models by name: A and B tied, UA and UB untied."""

    def __init__(self, root):
        self.root = root

    def write(self):
        for name, seed in (("A", 0), ("B", 1)):
            write_model(self.root / name, seed, tied=True)
            write_model(self.root / f"U{name}", seed, tied=False)
        return self

    @functools.cache  # noqa: B019
    def load(self, name):
        return AutoModelForCausalLM.from_pretrained(self.root / name, dtype=torch.float32).eval()

    @torch.no_grad()
    def logprobs(self, name, tokens, temperature=1.0):
        """Log-probs [n - 1] of tokens[1:], by transformers alone."""
        logits = self.load(name)(torch.tensor([list(tokens)])).logits[0, :-1]
        picked = (logits / temperature).log_softmax(-1).gather(1, torch.tensor(list(tokens))[1:, None])
        return picked[:, 0].numpy()


def prompt(length, start=0):
    return tuple((start + 7 * i) % (VOCAB - 2) + 2 for i in range(length))


def requests_for(*prompts, samples=1, seed=0):
    return [
        RolloutRequest(prompt_id=str(p), sample=s, prompt_tokens=tokens, seed=seed + 1000 * p + s)
        for p, tokens in enumerate(prompts)
        for s in range(samples)
    ]


def generate(engine, requests, temperature=1.0, max_tokens=32, should_stop=lambda: False, on_progress=lambda progress: None, **truncation):
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, **truncation)
    return engine.generate(requests, sampling, on_progress=on_progress, should_stop=should_stop)
