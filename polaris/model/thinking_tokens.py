"""`<think>` and `</think>` stay in the text of a response."""

from __future__ import annotations

import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from polaris.reward.extract import END_OF_THINKING, START_OF_THINKING


def keep_thinking(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, which no longer drops the marks of thinking as special tokens when it decodes.

    Who adds them to a model often adds them as special tokens; without them in the text, no response would ever have ended its thinking.
    The tokens of a text stay the same.
    """
    marks = {START_OF_THINKING, END_OF_THINKING}
    hidden = any(token.special and token.content in marks for token in tokenizer.added_tokens_decoder.values())
    if hidden and isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        for token in backend["added_tokens"]:
            token["special"] &= token["content"] not in marks
        # transformers has no way to take the mark off a token.
        vars(tokenizer)["_tokenizer"] = Tokenizer.from_str(json.dumps(backend))
    return tokenizer
