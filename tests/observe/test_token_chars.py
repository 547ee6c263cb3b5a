import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from polaris.embedded.tokenizer import build_tokenizer
from polaris.observe.samples import token_chars


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("text", ["<think>Compute 1 + 1</think>\\boxed{2}", "π ≈ 3.14, 漢字, 👩‍🚀 e\u0301", "", "\ufffd\x00\n\n\t"])
def test_every_character_belongs_to_the_token_that_completes_it(tokenizer, text):
    tokens = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    chars = token_chars(tokenizer, tokens, text)
    assert len(chars) == len(tokens)
    assert sum(chars) == len(text)
    assert chars[-1] == 0
    start = 0
    for token, size in zip(tokens, chars, strict=True):
        piece = text[start : start + size]
        start += size
        alone = tokenizer.decode([token], skip_special_tokens=True)
        assert piece == alone or "\ufffd" in alone


def test_a_character_of_several_tokens_is_added_by_the_last(tokenizer):
    tokens = tokenizer.encode("a漢b", add_special_tokens=False)
    assert token_chars(tokenizer, tokens, "a漢b") == (1, 0, 0, 1, 1)


BROKEN = (b"\x80\x80\x80\xe2\x82\xac", b"\xe2\xe2\x82\xac", b"a\xe6\xbc", b"\xff" * 200 + b"ok", b"\xf0\x9f\xf0\x9f\x91\xa9")


@pytest.mark.parametrize("cut", BROKEN)
def test_broken_utf8_is_counted_as_it_is_decoded(tokenizer, cut):
    letters = bytes_to_unicode()
    tokens = tokenizer.convert_tokens_to_ids([letters[byte] for byte in cut])
    text = tokenizer.decode(tokens)
    assert text == cut.decode(errors="replace")
    assert sum(token_chars(tokenizer, tokens, text)) == len(text)


def test_a_text_that_is_not_the_sum_of_its_tokens_has_no_pieces(tokenizer):
    tokens = tokenizer.encode("Compute", add_special_tokens=False)
    assert token_chars(tokenizer, tokens, " Compute") is None
