"""Conversations to imitate: what a row says, and its tokens with the mask of those that are trained on.

The text is that of the tokenizer's chat template. Which of its characters are trained on comes from the template's own `{% generation %}`
marks where it has them and the assistant alone is trained on, as in transformers' `return_assistant_tokens_mask`. Otherwise it comes from
prefixes: what the template writes for the messages before a turn, with the generation prompt, is what the model will have read; what
follows up to the token that ends the turn is what it learns to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from polaris.config.sft import SftConfig, SftDataConfig
from polaris.data.digest import held_out
from polaris.data.gold import BadRow
from polaris.data.prompts import BREAK, added_token_pattern
from polaris.data.rows import check_unicode
from polaris.data.sources import columns_of, lookup, nested
from polaris.errors import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROMPTS, _RESPONSES = ("prompt", "problem", "question"), ("response", "completion")
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PLACE = "\ufdd1"
"""Stands for a content; no text has this non-character of Unicode."""
_TEMPLATE = "give a chat template that keeps it with model.chat_template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The messages of one row; those before number `begin` are never trained on. `source` is `file:row`."""

    messages: tuple[Mapping[str, Any], ...]
    begin: int
    source: str

    def held_out(self, fraction: float, seed: int) -> bool:
        """Whether it is held out of training: by content, so that a repeated row is on one side with itself."""
        return held_out(str(self.messages), fraction, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sequence: `tokens` [n] int32 and `mask` [n] bool, True for the tokens that are trained on; `source` is `file:row`."""

    tokens: np.ndarray
    mask: np.ndarray
    source: str

    @property
    def trained(self) -> int:
        """Number of tokens that are trained on. The first token of a sequence follows nothing, so it never is."""
        return int(self.mask[1:].sum())


def read_conversation(row: dict[str, Any], source: str, columns: Mapping[str, str]) -> Conversation:
    """The conversation of a row: `messages`, or a prompt (text or messages) and its response (text or messages).

    Raises:
        BadRow: naming `source`, if the row has neither, or something that is no message.
    """
    named = "messages" in columns or (row.get("messages") is not None and "prompt" not in columns)
    if named:
        messages = _messages(row, columns.get("messages", "messages"), "user", source)
        return Conversation(messages=messages, begin=0, source=source)
    prompt = columns.get("prompt") or next((name for name in _PROMPTS if name in row), None)
    response = columns.get("response") or next((name for name in _RESPONSES if name in row), None)
    if prompt is None or response is None:
        expected = "expected `messages`, or `prompt` with `response` or `completion`; or name them with data.columns"
        raise BadRow(source, f"the columns {columns_of(row)}", expected, "no conversation")
    before = _messages(row, prompt, "user", source)
    return Conversation(messages=(*before, *_messages(row, response, "assistant", source)), begin=len(before), source=source)


def _messages(row: dict[str, Any], column: str, role: str, source: str) -> tuple[Mapping[str, Any], ...]:
    value = nested(lookup(row, column))
    if value is None:
        raise BadRow(source, f"no column `{column}`", f"there is {columns_of(row)}; correct data.columns", f"no column {column}")
    messages = value if isinstance(value, list) else [{"role": role, "content": value}]
    # Parquet has every key in every message, null where it was not there.
    messages = [{key: item for key, item in one.items() if item is not None} if isinstance(one, dict) else one for one in messages]
    for one in messages:
        texts = isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content", ""), str)
        if not texts or not ("content" in one or "tool_calls" in one):
            raise BadRow(source, f"something in `{column}` that is no message", "each has a role and a content, both text; fix the row")
    if not messages:
        raise BadRow(source, f"no message in `{column}`", "fix or remove the row")
    check_unicode(json.dumps(messages, ensure_ascii=False, default=str), source)
    return tuple(messages)


def encode(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, data: SftDataConfig) -> list[Example]:
    """The examples of a conversation: one, or none if it has no turn that is trained on.

    Some templates write a turn otherwise once more turns follow (Qwen3 leaves out the thinking of earlier turns). There each trained turn
    becomes an example of its own, behind what the model will have read when it writes it.

    Raises:
        BadRow: the template refuses the messages, or does not write what they say.
    """
    writer = _Writer(conversation, tokenizer, data)
    turns = [
        number for number, message in enumerate(conversation.messages) if number >= conversation.begin and message["role"] in data.train_on
    ]
    if not turns:
        return []
    last = len(conversation.messages)
    if _MARKED.search(str(tokenizer.chat_template)) and data.train_on == ("assistant",):
        return [writer.marked(turns)]
    text = writer.text(last)
    spans = [writer.span(number) for number in turns]
    if all(text.startswith(whole) for _, _, whole in spans):
        return [writer.example(text, [(start, end) for start, end, _ in spans])]
    return [writer.example(whole, [(start, end)]) for start, end, whole in spans]


class _Writer:
    """A conversation as the chat template writes it."""

    def __init__(self, conversation: Conversation, tokenizer: PreTrainedTokenizerBase, data: SftDataConfig) -> None:
        self._of, self._tokenizer, self._options = conversation, tokenizer, data.chat_template_options
        self._ends = [token for token in tokenizer.get_added_vocab() if token.strip()]
        self._messages = self._as_text(tokenizer)

    def _as_text(self, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """The messages, with `BREAK` in what they spell of the tokenizer's added tokens, so that it is read as ordinary text, as in the
        prompts of training. The assistant may write those that are not special, such as the marks of thinking."""
        every = added_token_pattern(tokenizer)
        own = [rf"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in tokenizer.all_special_tokens if token[1:]]
        special = re.compile("|".join(own or ["(?!)"]))

        def as_text(value: Any, assistant: bool) -> Any:
            if isinstance(value, str):
                return special.sub(BREAK, value) if assistant else every.sub(rf"\g<0>{BREAK}", value)
            if isinstance(value, Mapping):  # of tool calls
                return {name: as_text(item, assistant) for name, item in value.items()}
            return [as_text(item, assistant) for item in value] if isinstance(value, list) else value

        return [{**as_text(one, one["role"] == "assistant"), "role": one["role"]} for one in self._of.messages]

    def text(self, messages: int, asks: bool = False) -> str:
        """The first so many messages; with the generation prompt of the assistant's turn if `asks`."""
        return self._written(self._messages[:messages], asks)

    def _written(self, messages: list[dict[str, Any]], asks: bool = False) -> str:
        if not messages:
            return ""
        how = {**self._options, "tokenize": False, "add_generation_prompt": asks}
        return str(self._rendered(self._tokenizer.apply_chat_template, messages, **how))

    def span(self, number: int) -> tuple[int, int, str]:
        """Where the trained part of message `number` begins and ends, in the text that ends with it; and that text."""
        asks = number > 0 and self._messages[number]["role"] == "assistant"
        whole, before = self.text(number + 1), self.text(number, asks)
        self._check_begin(whole, before)
        start = len(before) if asks else self._head(number)
        self._check_kept(number, before, whole[start:])
        stripped = whole.rstrip()
        ends = any(stripped.endswith(token) for token in self._ends)
        return start, max(start, len(stripped) if ends else len(whole)), whole

    def _head(self, number: int) -> int:
        """Length of what the template writes up to the content of message `number`."""
        head, place, _ = self._written([*self._messages[:number], {**self._messages[number], "content": _PLACE}]).partition(_PLACE)
        return len(head) if place else 0

    def _check_kept(self, number: int, before: str, text: str) -> None:
        """`text` is what the template writes of message `number`, behind `before`."""
        role, content = self._messages[number]["role"], str(self._messages[number].get("content", "")).strip()
        if "".join(content.split()) not in "".join(text.split()) and not _opened(before, content):
            self._refuse(f"leaves out a part of the {role}'s text, such as its thinking", _TEMPLATE)

    def example(self, text: str, spans: Sequence[tuple[int, int]]) -> Example:
        """The text's tokens; those that share a character with a span are trained on."""
        pieces = text.split(BREAK)
        encoded = self._tokenizer(pieces, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        begins = np.cumsum([0, *(len(piece) + len(BREAK) for piece in pieces[:-1])])
        found = zip(encoded["offset_mapping"], begins, strict=True)
        places = np.concatenate([np.array(places, dtype=np.int64).reshape(-1, 2) + begin for places, begin in found])
        mask = np.zeros(len(places), dtype=bool)
        for start, end in spans:
            mask |= (places[:, 0] < end) & (places[:, 1] > start)
        return self._example([token for tokens in encoded["input_ids"] for token in tokens], mask)

    def marked(self, turns: Sequence[int]) -> Example:
        """By the template's own marks, those of the prompt left out; `turns` are the messages that are trained on."""
        from transformers.utils.chat_template_utils import render_jinja_template

        words = {**self._tokenizer.special_tokens_map, **self._options, "return_assistant_tokens_mask": True}
        words["chat_template"] = self._tokenizer.get_chat_template()
        (text,), (spans,) = self._rendered(render_jinja_template, [self._messages], **words)
        before = self.text(self._of.begin)
        self._check_begin(text, before)
        for number in turns:
            self._check_kept(number, before, text)
        if not (trained := [(start, end) for start, end in spans if start >= len(before)]):
            self._refuse("marks nothing with {% generation %}", "mend its marks, or take them out, with model.chat_template")
        return self.example(text, trained)

    def _example(self, tokens: list[int], mask: np.ndarray) -> Example:
        return Example(tokens=np.array(tokens, dtype=np.int32), mask=mask, source=self._of.source)

    def _rendered(self, render: Callable[..., Any], messages: list[Any], **how: Any) -> Any:
        try:
            return render(messages, **how)
        except (jinja2.TemplateError, TypeError) as error:
            raise BadRow(
                self._of.source, f"messages that the chat template refuses ({error})", "check their roles and data.chat_template_options"
            ) from error

    def _check_begin(self, whole: str, before: str) -> None:
        if not whole.startswith(before):
            self._refuse("does not begin a turn with what it asks for it with", "give a template that does with model.chat_template")

    def _refuse(self, what: str, remedy: str) -> None:
        raise BadRow(self._of.source, f"a conversation of which the chat template {what}", remedy)


def _opened(before: str, content: str) -> bool:
    """Whether the generation prompt has written the mark with which the content begins, such as `<think>`."""
    mark = before.rstrip().rpartition("<")[2]
    return bool(mark) and content.startswith(f"<{mark}")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: SftConfig) -> None:
    """Raise `Refused` for a tokenizer that cannot say which tokens are trained on."""
    if not tokenizer.chat_template:
        raise Refused(f"the tokenizer of {config.model.path} has no chat template; give one with model.chat_template")
    if not tokenizer.is_fast:
        raise Refused(f"the tokenizer of {config.model.path} does not say where its tokens stand in the text; use one with tokenizer.json")
