"""From rows to prompts: columns checked, chat template applied, tokenized, over-long ones dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from polaris.data.prompt import GroundTruth, Prompt
from polaris.data.sources import read_rows
from polaris.reward.grade import gradable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPECTED = "`prompt` (chat messages) with `reward_model.ground_truth`, or `problem` or `question` with `answer`"
# A Unicode non-character: never part of legitimate text, so it can mark a place in it.
BREAK = "\ufdd0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """`prompts` are usable; of the set's `total` rows, `too_long` exceeded the limit and `ungradable` have no usable ground truth."""

    prompts: tuple[Prompt, ...]
    total: int
    too_long: int
    ungradable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    id: str
    messages: list[dict[str, str]]
    ground_truth: GroundTruth
    source: str


def load_prompts(
    path: str,
    *,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    prompt_suffix: str,
    chat_template_options: dict[str, bool | str],
) -> PromptSet:
    """Load a prompt set in the POLARIS/verl or DeepScaleR format, rendered with the tokenizer's chat template.

    The id of a row is its `id`, else `extra_info.id`, else `extra_info.index`, else `<file stem>-<row>`; it must be unique in the set.
    A row whose ground truth is there but null, empty (four rows of DeepScaleR's MATH part), longer than the grader reads or
    not finite is dropped and counted as ungradable.
    Text of a prompt that spells one of the tokenizer's added tokens (`<|im_end|>`, `</think>`, ...) is encoded as ordinary
    text; all other prompts get exactly the tokens of `apply_chat_template`.
    Raises `ValueError` naming file and row for a missing problem, a missing answer column, answers of another type, and
    duplicate ids; and naming the file when no row is left.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; use an instruction-tuned model, or add chat_template.jinja to its folder")
    problems = list(_read_problems(path, split))
    usable = [problem for problem in problems if gradable(problem.ground_truth)]
    if not usable:
        raise ValueError(
            f"{problems[0].source} and all other rows have a null, empty or ungradable ground truth; give answers that can be compared"
        )
    texts = _render(usable, tokenizer, prompt_suffix, chat_template_options)
    prompts = tuple(
        Prompt(id=problem.id, text=text.replace(BREAK, ""), tokens=tokens, ground_truth=problem.ground_truth, source=problem.source)
        for problem, text, tokens in zip(usable, texts, _tokenize(texts, tokenizer), strict=True)
        if len(tokens) <= max_prompt_tokens
    )
    if not all(prompt.tokens for prompt in prompts):
        raise ValueError(f"{path}: the tokenizer gives no tokens; does the model's folder hold tokenizer.json?")
    if not prompts:
        raise ValueError(f"{path}: all {len(usable)} prompts exceed data.max_prompt_tokens = {max_prompt_tokens}; raise it")
    return PromptSet(prompts=prompts, total=len(problems), too_long=len(usable) - len(prompts), ungradable=len(problems) - len(usable))


def _read_problems(path: str, split: str) -> Iterator[_Problem]:
    seen: dict[str, str] = {}
    for number, (source, row) in enumerate(read_rows(path, split)):
        identity = _identity(row)
        problem = _Problem(
            id=f"{Path(path).stem}-{number}" if identity is None else identity,
            messages=_messages(row, source),
            ground_truth=_ground_truth(row, source),
            source=source,
        )
        if problem.id in seen:
            raise ValueError(f"{source} has the id {problem.id!r} of {seen[problem.id]}; make ids unique, or remove the column")
        seen[problem.id] = source
        yield problem


def _identity(row: dict[str, Any]) -> str | None:
    extra = row["extra_info"] if isinstance(row.get("extra_info"), dict) else {}
    found = next((value for value in (row.get("id"), extra.get("id"), extra.get("index")) if value is not None), None)
    return None if found is None else str(found)


def _messages(row: dict[str, Any], source: str) -> list[dict[str, str]]:
    column = next((name for name in ("prompt", "problem", "question") if name in row), None)
    if column is None:
        raise ValueError(f"{source} has the columns {', '.join(map(str, row)) or '(none)'}; expected {EXPECTED}")
    value = row[column]
    messages = value if isinstance(value, list) else [{"role": "user", "content": value}]
    complete = all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages)
    if not complete or not any(m["role"] == "user" and m["content"].strip() for m in messages):
        raise ValueError(
            f"{source} has no problem in `{column}`; expected text, or chat messages with the user's text; fix or remove the row"
        )
    if any("\ud800" <= character <= "\udfff" for m in messages for character in m["content"]):
        raise ValueError(f"{source} holds half of a surrogate pair, which is no Unicode text; fix or remove the row")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _ground_truth(row: dict[str, Any], source: str) -> GroundTruth:
    """The accepted answers as the set gives them, () where it says null."""
    reward_model = row.get("reward_model")
    if isinstance(reward_model, dict) and "ground_truth" in reward_model:
        value = reward_model["ground_truth"]
    elif "answer" in row:
        value = row["answer"]
    else:
        raise ValueError(f"{source} has no answer among the columns {', '.join(map(str, row))}; expected {EXPECTED}")
    if value is None:
        return ()
    answers = value if isinstance(value, list) else [value]
    if not all(isinstance(answer, str | int | float) and not isinstance(answer, bool) for answer in answers):
        raise ValueError(f"{source} has the answer {value!r}; expected text, a number, or a list of those; fix or remove the row")
    return tuple(answers) if isinstance(value, list) else value


def _render(problems: Sequence[_Problem], tokenizer: PreTrainedTokenizerBase, suffix: str, options: dict[str, Any]) -> list[str]:
    """Chat-template texts in which every added token that a prompt spells is broken by `BREAK` after its first character."""
    spelled = _added_token_pattern(tokenizer)
    texts = []
    for problem in problems:
        messages = [{**message, "content": spelled.sub(rf"\g<0>{BREAK}", message["content"])} for message in problem.messages]
        if suffix:
            last = max(index for index, message in enumerate(messages) if message["role"] == "user")
            messages[last]["content"] += f" {suffix}"
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        except jinja2.TemplateError as error:
            raise ValueError(
                f"{problem.source}: the chat template refuses it ({error}); check its roles and data.chat_template_options"
            ) from error
        texts.append(str(text))
    return texts


def _added_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the first character of every added token, overlaps included; runs of white space are harmless and stay."""
    tokens = [re.escape(token) for token in tokenizer.get_added_vocab() if len(token.strip()) > 1]
    return re.compile(rf"(?=(?:{'|'.join(tokens)})).", re.DOTALL) if tokens else re.compile(r"(?!)")


def _tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    pieces = [text.split(BREAK) for text in texts]
    encoded = iter(tokenizer([piece for parts in pieces for piece in parts], add_special_tokens=False, verbose=False)["input_ids"])
    return [tuple(token for _ in parts for token in next(encoded)) for parts in pieces]
