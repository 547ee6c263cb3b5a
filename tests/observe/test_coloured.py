import math
import re
from html import unescape

import pytest

from polaris.observe.coloured import MAX_CHARS, block, level_runs
from polaris.observe.markup import safe
from polaris.observe.sections.rollouts import _response


def rollout(*tokens):
    """From (piece, probability) pairs."""
    return {
        "response": "".join(piece for piece, _ in tokens),
        "logprobs": [math.log(p) for _, p in tokens],
        "token_chars": [len(piece) for piece, _ in tokens],
    }


def levels(markup):
    """(text, level) of the parts of a block."""
    parts = re.findall(r"<i class=p(\d)>(.*?)</i>|([^<]+)", markup.removeprefix("<pre>").removesuffix("</pre>"), re.S)
    return [(unescape(coloured or plain), int(level or 0)) for level, coloured, plain in parts]


def test_tokens_of_one_level_are_one_part_and_the_sure_ones_none():
    sampled = rollout(("ab", 0.99), ("<c>", 0.95), ("d", 0.6), ("e", 0.3), ("f", 0.2), ("\n", 0.05), ("g", 0.001))
    assert levels(block(sampled["response"], level_runs(sampled))) == [("ab<c>", 0), ("d", 1), ("ef", 2), ("\n", 3), ("g", 4)]


def test_a_split_character_has_the_level_of_its_least_probable_token():
    sampled = rollout(("a", 1.0), ("", 0.001), ("", 1.0), ("漢", 1.0), ("b", 1.0), ("", 0.5))
    assert levels(block(sampled["response"], level_runs(sampled))) == [("a", 0), ("漢", 4), ("b", 0)]


def test_colours_stay_with_their_characters_when_thinking_is_folded_and_white_space_goes():
    sampled = rollout(("<think>", 1.0), ("\n a", 0.3), (" b", 1.0), ("\n</think>", 1.0), ("\n\n", 1.0), ("x", 0.04), ("y", 1.0))
    markup = _response(sampled["response"], level_runs(sampled))
    thinking, answer = re.findall(r"<pre>.*?</pre>", markup, re.S)
    assert levels(thinking) == [("a", 2), (" b", 0)]
    assert levels(answer) == [("x", 3), ("y", 0)]


def test_colours_stay_with_their_characters_when_the_middle_is_cut():
    tokens = [("abcde"[index % 5 : index % 5 + 1] * (1 + index % 3), 0.3 if index % 7 == 0 else 1.0) for index in range(60_000)]
    sampled = rollout(*tokens)
    shown = levels(block(sampled["response"], level_runs(sampled)))
    text = "".join(piece for piece, _ in shown)
    head, tail = re.split(r"\n\[\.\.\. [\d,]+ characters left out \.\.\.\]\n", text)
    assert len(head) == len(tail) == MAX_CHARS // 2
    assert sampled["response"].startswith(head)
    assert sampled["response"].endswith(tail)
    by_character = [level for piece, level in shown for _ in piece]
    wanted = [2 if p < 0.9 else 0 for piece, p in tokens for _ in piece]
    assert by_character[: len(head)] == wanted[: len(head)]
    assert by_character[-len(tail) :] == wanted[-len(tail) :]


@pytest.mark.parametrize("changes", [{"token_chars": None}, {"token_chars": [1]}, {"logprobs": None}, {"logprobs": "text"}])
def test_without_the_characters_of_its_tokens_a_response_is_plain(changes):
    sampled = {**rollout(("a", 0.1), ("b", 0.1)), **changes}
    assert level_runs(sampled) is None
    assert block("ab", level_runs(sampled)) == "<pre>ab</pre>"


def test_characters_that_turn_or_hide_text_are_spelt_out():
    assert safe("a\u202eb\u2066\x00\x1b\ud800\x85\u2028") == "a[U+202E]b[U+2066][U+0000][U+001B][U+D800][U+0085][U+2028]"
    assert safe("漢字 👩‍🚀\n\t\"<'&") == "漢字 👩‍🚀\n\t&quot;&lt;&#x27;&amp;"
