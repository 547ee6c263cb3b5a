"""Marks of thinking that a tokenizer has as special tokens stay in the text of a response."""

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

from polaris.embedded.tokenizer import build_tokenizer
from polaris.model.load import keep_thinking, load_tokenizer

TEXT = "<think>4</think>\\boxed{5}"


@pytest.mark.parametrize("special", [False, True])
def test_thinking_is_in_the_text(tmp_path, special):
    tokenizer = build_tokenizer()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(tmp_path)
    plain, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    tokens = plain(f"{TEXT}<|end|>", add_special_tokens=False)["input_ids"]
    assert plain.decode(tokens, skip_special_tokens=True) == ("4\\boxed{5}" if special else TEXT)
    assert ours.batch_decode([tokens], skip_special_tokens=True) == [TEXT]
    assert ours(f"{TEXT}<|end|>", add_special_tokens=False)["input_ids"] == tokens


def test_a_tokenizer_in_python_is_left_as_it_is():
    tokenizer = ByT5Tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert keep_thinking(tokenizer) is tokenizer
