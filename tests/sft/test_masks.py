"""Which tokens are trained on, against transformers' own masks and TRL's templates."""

import re

import numpy as np
import pandas
import pytest

from polaris.config.sft import SftDataConfig
from polaris.data.conversations import Conversation, encode, read_conversation
from polaris.data.gold import BadRow
from polaris.data.sources import read_rows
from polaris.embedded.tokenizer import build_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Compute 1+2."},
    {"role": "assistant", "content": "\\boxed{3}"},
    {"role": "user", "content": "And 2+2?"},
    {"role": "assistant", "content": "It is \\boxed{4}, I think."},
]
DATA = SftDataConfig(path="unused")
trl_templates = pytest.importorskip("trl.chat_template_utils")


@pytest.fixture
def tokenizer():
    """A byte-level one with the marks of ChatML."""
    made = build_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def of(messages, begin=0):
    return Conversation(messages=tuple(messages), begin=begin, source="chats.jsonl:1")


def trained_text(tokenizer, example):
    return tokenizer.decode(example.tokens[example.mask])


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_instruct_2507", "llama3", "lfm2"])
def test_prefixes_find_what_the_marks_of_trl_say(tokenizer, name):
    """But for line ends, which some of its marks take in at the begin and the end of a turn."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end_header_id|>"]})
    tokenizer.bos_token = "<|pad|>"
    marked = tokenizer.chat_template = getattr(trl_templates, f"{name}_training_chat_template")
    expected = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    (by_marks,) = encode(of(CHAT), tokenizer, DATA)
    plain = re.sub(r"(\{%-?\s*)generation(\s*-?%\})", r"\1if true\2", marked)
    tokenizer.chat_template = re.sub(r"(\{%-?\s*)endgeneration(\s*-?%\})", r"\1endif\2", plain)
    (by_prefix,) = encode(of(CHAT), tokenizer, DATA)
    np.testing.assert_array_equal(by_marks.tokens, expected["input_ids"])
    np.testing.assert_array_equal(by_marks.mask, expected["assistant_masks"])
    np.testing.assert_array_equal(by_prefix.tokens, expected["input_ids"])
    line_ends = by_prefix.tokens == tokenizer.encode("\n")[0]
    np.testing.assert_array_equal(by_prefix.mask & ~line_ends, by_marks.mask & ~line_ends)
    assert by_prefix.mask.sum() > 20


def test_marks_leave_out_the_turns_of_a_prompt(tokenizer):
    tokenizer.chat_template = trl_templates.qwen2_5_training_chat_template
    (whole,), (last,) = encode(of(CHAT), tokenizer, DATA), encode(of(CHAT, begin=4), tokenizer, DATA)
    np.testing.assert_array_equal(last.tokens, whole.tokens)
    assert trained_text(tokenizer, whole) == "\n\\boxed{3}<|im_end|>\n" + trained_text(tokenizer, last)
    assert trained_text(tokenizer, last) == "\nIt is \\boxed{4}, I think.<|im_end|>\n"


def test_a_template_that_drops_earlier_thinking_gives_an_example_for_every_turn(tokenizer):
    tokenizer.chat_template = trl_templates.qwen3_chat_template
    thoughts = [one | {"content": f"<think>\nhm\n</think>\n\n{one['content']}"} if one["role"] == "assistant" else one for one in CHAT]
    first, second = encode(of(thoughts), tokenizer, DATA)
    assert trained_text(tokenizer, first) == "<think>\nhm\n</think>\n\n\\boxed{3}<|im_end|>"
    assert trained_text(tokenizer, second) == "<think>\nhm\n</think>\n\nIt is \\boxed{4}, I think.<|im_end|>"
    asked = tokenizer.apply_chat_template(thoughts[:-1], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(second.tokens[~second.mask]).rstrip("\n") == asked.rstrip("\n")
    assert "hm" not in asked


def test_a_template_that_leaves_out_the_thinking_is_refused(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'].split('</think>')[-1]")
    with pytest.raises(BadRow, match=r"chats.jsonl:1 .*its thinking; give a chat template that keeps it"):
        encode(of([CHAT[1], {"role": "assistant", "content": "<think>long</think>3"}]), tokenizer, DATA)


MARKED = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [None, MARKED], ids=["prefixes", "marks"])
def test_markers_that_a_text_spells_are_text(tokenizer, template):
    tokenizer.chat_template = template or tokenizer.chat_template
    spelling = [{"role": "user", "content": "a<|end|>b</think>"}, {"role": "assistant", "content": "<think>c<|end|>"}]
    (example,) = encode(of(spelling), tokenizer, DATA)
    kinds = tokenizer.convert_ids_to_tokens(example.tokens.tolist())
    assert kinds.count("<|end|>") == 2  # the two turns end, and nothing else
    assert (kinds.count("<think>"), kinds.count("</think>")) == (1, 0)
    assert trained_text(tokenizer, example) == "<think>c<|end|><|end|>"


def test_markers_in_the_arguments_of_a_call_are_text(tokenizer):
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message.get('content', '') }}"
        "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    call = {"type": "function", "function": {"name": "say", "arguments": {"words": ["a<|end|>b"]}}}
    (example,) = encode(of([CHAT[1], {"role": "assistant", "tool_calls": [call]}]), tokenizer, DATA)
    assert tokenizer.convert_ids_to_tokens(example.tokens.tolist()).count("<|end|>") == 2
    assert '["a<|end|>b"]' in trained_text(tokenizer, example)


def test_of_prompt_and_response_the_response_alone_is_trained(tokenizer):
    row = {"prompt": CHAT[:4], "completion": CHAT[4:]}
    (example,) = encode(read_conversation(row, "x:1", {}), tokenizer, DATA)
    assert trained_text(tokenizer, example) == "It is \\boxed{4}, I think.<|end|>"
    (text,) = encode(read_conversation({"problem": "2+2?", "response": "4"}, "x:1", {}), tokenizer, DATA)
    assert tokenizer.decode(text.tokens) == "<|user|>2+2?<|end|><|assistant|>4<|end|>"
    assert trained_text(tokenizer, text) == "4<|end|>"


def test_a_parquet_file_says_what_the_jsonl_says(tmp_path):
    """Parquet gives every message the keys of all of them, null where there was none."""
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "1, 2"}}]}
    rows = [{"messages": CHAT}, {"messages": [CHAT[1], call, {"role": "tool", "content": "3", "name": "add"}, CHAT[2]]}]
    pandas.DataFrame(rows).to_parquet(tmp_path / "chats.parquet")
    read = [read_conversation(row, "x:1", {}).messages for _, row in read_rows(str(tmp_path / "chats.parquet"), "train")]
    assert [list(map(dict, messages)) for messages in read] == [row["messages"] for row in rows]


def test_other_roles_are_trained_where_asked(tokenizer):
    (example,) = encode(of(CHAT), tokenizer, SftDataConfig(path="unused", train_on=("user",)))
    assert trained_text(tokenizer, example) == "Compute 1+2.<|end|>And 2+2?<|end|>"
    assert encode(of(CHAT), tokenizer, SftDataConfig(path="unused", train_on=("tool",))) == []


DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|system|>You are an AI assistant.<|end|>{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("text", ["a", "AI", "user", "end", " s ", ""])
def test_what_a_template_writes_by_itself_is_not_trained_on(tokenizer, text):
    tokenizer.chat_template = DEFAULT_SYSTEM
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": "1"}, {"role": "user", "content": text}]
    (example,) = encode(of(chat), tokenizer, SftDataConfig(path="unused", train_on=("user",)))
    assert trained_text(tokenizer, example) == f"{text.strip()}<|end|>" * 2
    (example,) = encode(of(chat[1:]), tokenizer, DATA)
    assert trained_text(tokenizer, example) == "1<|end|>"


@pytest.mark.parametrize("begin", [0, 1])
def test_marks_that_leave_out_what_is_trained_on_are_refused(tokenizer, begin):
    thinking = [CHAT[1], {"role": "assistant", "content": "<think>long</think>2"}]
    tokenizer.chat_template = MARKED.replace(
        "message['content'] }}<|end|>{% end", "message['content'].split('</think>')[-1] }}<|end|>{% end"
    )
    with pytest.raises(BadRow, match="leaves out a part of the assistant's text, such as its thinking"):
        encode(of(thinking, begin), tokenizer, DATA)
    tokenizer.chat_template = MARKED.replace("== 'assistant'", "== 'nobody'")
    with pytest.raises(BadRow, match="marks nothing"):
        encode(of(thinking, begin), tokenizer, DATA)


def test_a_row_whose_messages_are_empty_is_read_by_its_other_columns():
    row = {"messages": None, "prompt": "1+1?", "response": "2"}
    assert [one["content"] for one in read_conversation(row, "x:1", {}).messages] == ["1+1?", "2"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a\ud800", "response": "b"}, "x:1 has half of a surrogate pair"),
        ({"text": "a"}, "x:1 has the columns text; expected `messages`"),
        ({"messages": [{"role": "user"}]}, "x:1 has something in `messages` that is no message"),
        ({"messages": []}, "x:1 has no message"),
    ],
)
def test_bad_rows_are_refused(row, said):
    with pytest.raises(BadRow, match=re.escape(said)):
        read_conversation(row, "x:1", {})
