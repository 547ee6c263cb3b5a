"""A task that a random model solves half of the time: two of its few tokens are whole answers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ANSWERS = ("\\boxed{1}", "\\boxed{2}")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, two boxed answers, a start and an end token."""
    tokens = ["<s>", "</s>", *ANSWERS, *"abcdefghijklmnopqrstuvwxyz", " ", "?"]
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.add_special_tokens([AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", chat_template=TEMPLATE)


def write_problems(path: Path) -> None:
    """Four prompts of different lengths."""
    texts = ("one or two", "which of the two answers is right", "guess", "say a number and say no more than that")
    path.write_text("".join(json.dumps({"problem": text, "answer": str(1 + i % 2)}) + "\n" for i, text in enumerate(texts)))
