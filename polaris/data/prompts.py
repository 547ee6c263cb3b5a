"""From problems to prompts: drop ungradable and contaminated ones, apply the chat template, tokenize, drop those too long."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jinja2

from polaris.config.recipe import DifficultyConfig
from polaris.data.digest import held_out
from polaris.data.evaluation_sets import EvaluationSet, matches_by_set
from polaris.data.gold import Check, Rejected
from polaris.data.normalise import exact_key, without_instruction
from polaris.data.pass_rates import read_pass_rate
from polaris.data.problems import Problem, Survey, instructed, read_problems, rejected, repeated
from polaris.data.reading import PLAIN, Reading
from polaris.doors import short
from polaris.errors import Refused
from polaris.reward.grade import ungradable_reason
from polaris.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A Unicode non-character is never part of legitimate text, so it can mark a place.
BREAK = "\ufdd0"
_NAMED_ROWS = 3
HoldOut = Callable[[str], bool]
"""Whether the problem of a text is held out of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """`prompts` are usable, and `held_out` are those that were held out of them. Of the set's `total` rows, `repeated` have id and content
    of an earlier one, `rejected` have no gradable answer, `overlapping` are also in an evaluation set, and `too_long` exceed the limit.
    Each row counts once, in this order."""

    prompts: tuple[Prompt, ...]
    total: int
    repeated: int
    rejected: tuple[Rejected, ...]
    overlapping: int
    too_long: int
    held_out: tuple[Prompt, ...] = ()

    @property
    def ungradable(self) -> int:
        return len(self.rejected)


def load_prompts(
    path: str,
    *,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    prompt_suffix: str,
    chat_template_options: dict[str, bool | str],
    strict: bool = False,
    evaluation_sets: Sequence[EvaluationSet] = (),
    difficulty: DifficultyConfig | None = None,
    reading: Reading = PLAIN,
    check: Check = ungradable_reason,
    name: str = "",
    hold_out: HoldOut | None = None,
) -> PromptSet:
    """Load a prompt set in the POLARIS/verl or DeepScaleR format, or as `reading` says, rendered with the tokenizer's chat template.

    Every answer is parsed here: a row whose ground truth no response could equal (missing, null or empty as in four rows of
    DeepScaleR's MATH part, LaTeX without its backslashes, a placeholder, a sentence, refused by the grader's screen; docs/grader.md)
    is rejected with the reason that `check` gives, or an error if `strict`. A row with id and content of an earlier one, or that
    overlaps with one of `evaluation_sets` (`polaris.data.overlap`), is dropped and counted.
    Pass rates are read from `difficulty.column` (`polaris.data.pass_rates`) if it is named. A set's `name`, if it has one, stands in
    front of its prompts' ids. `hold_out` decides which problems are held out of training.
    Text of a prompt that spells one of the tokenizer's added tokens (`<|im_end|>`, `</think>`, ...) is encoded as ordinary
    text; all other prompts get exactly the tokens of `apply_chat_template`.
    Raises `ValueError` as `read_problems` does, and if no row is left.
    """
    if not tokenizer.chat_template:
        raise Refused("the tokenizer has no chat template; use an instruction-tuned model, or add chat_template.jinja to its folder")
    problems = read_problems(path, split, difficulty.column if difficulty else None, reading, check)
    path = short(path)
    usable, errors = _gradable(problems, path, strict, check)
    clean = _without_overlap(usable, evaluation_sets)
    if not clean:
        raise Refused(f"{path}: all {len(usable)} prompts are also in the sets of data.decontaminate; train on another set")
    encoded = encode_texts(clean, tokenizer, prompt_suffix, chat_template_options)
    if not all(tokens for _, tokens in encoded):
        raise Refused(f"{clean[0].source}: the tokenizer gives no tokens; does the model's folder hold tokenizer.json?")
    fitting = [(problem, *one) for problem, one in zip(clean, encoded, strict=True) if len(one[1]) <= max_prompt_tokens]
    if not fitting:
        raise Refused(f"{path}: all {len(clean)} prompts exceed data.max_prompt_tokens = {max_prompt_tokens}; raise it")
    held = [hold_out is not None and hold_out(problem.text) for problem, *_ in fitting]
    if hold_out is not None and len(set(held)) == 1:
        raise Refused(f"{path}: eval.fraction leaves no prompt of {len(held)} {'for training' if held[0] else 'held out'}; change it")
    prompts = [_prompt(*one, prompt_suffix, difficulty, name) for one in fitting]
    return PromptSet(
        prompts=tuple(prompt for prompt, out in zip(prompts, held, strict=True) if not out),
        held_out=tuple(prompt for prompt, out in zip(prompts, held, strict=True) if out),
        total=len(problems) + repeated(problems),
        repeated=repeated(problems),
        rejected=errors,
        overlapping=len(usable) - len(clean),
        too_long=len(clean) - len(fitting),
    )


def hold_out(fraction: float, seed: int) -> HoldOut:
    """Whether a problem is held out: by a hash of its text and the seed, so that neither the order nor the other problems matter, nor its
    id, system prompt and suffix; a problem that comes twice in other dress is on one side with itself."""

    def held(text: str) -> bool:
        return held_out(exact_key(text), fraction, seed)

    return held


def _gradable(problems: Sequence[Problem], path: str, strict: bool, check: Check) -> tuple[list[Problem], tuple[Rejected, ...]]:
    found = [rejected(problem, check) for problem in problems]
    errors = tuple(error for error in found if error)
    if len(errors) == len(problems):
        raise Refused(
            f"{problems[0].source} and all other rows have a null, empty or ungradable ground truth "
            f"({', '.join(sorted({error.reason for error in errors}))}); give answers that can be compared"
        )
    if strict and errors:
        raise Refused(f"{ungradable_rows(errors)}; `polaris data check {path}` lists all; remove the rows, or set data.strict = false")
    return [problem for problem, error in zip(problems, found, strict=True) if not error], errors


def ungradable_rows(errors: Sequence[Rejected]) -> str:
    """The count of rows, and for each reason its count and first rows."""
    named = []
    for reason, _ in Counter(error.reason for error in errors).most_common():
        sources = [error.source for error in errors if error.reason == reason]
        more = f" and {len(sources) - _NAMED_ROWS} more" if len(sources) > _NAMED_ROWS else ""
        named.append(f"{', '.join(sources[:_NAMED_ROWS])}{more} ({reason})")
    return f"{len(errors)} row{'s' if len(errors) > 1 else ''} without a gradable answer: {'; '.join(named)}"


def encode_texts(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, suffix: str, options: dict[str, Any]
) -> list[tuple[str, tuple[int, ...]]]:
    """The chat text of each problem, and its tokens."""
    texts = _render(problems, tokenizer, suffix, options)
    return [(text.replace(BREAK, ""), tokens) for text, tokens in zip(texts, _tokenize(texts, tokenizer), strict=True)]


def without_refused(rows: Survey, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]) -> Survey:
    """The survey, with problems that the chat template refuses moved to its broken rows."""
    kept, broken, errors = list[Problem](), list[Rejected](), list[str]()
    spelled = added_token_pattern(tokenizer)
    for problem in rows.problems:
        try:
            _chat_text(problem, tokenizer, spelled, "", options)
            kept.append(problem)
        except Refused as error:
            broken.append(Rejected(id=problem.id, source=problem.source, reason="a chat that the model's template refuses"))
            errors.append(str(error))
    if not kept:
        raise Refused(errors[0])
    return replace(rows, problems=kept, broken=rows.broken + broken, errors=rows.errors + errors)


def _prompt(problem: Problem, text: str, tokens: tuple[int, ...], suffix: str, difficulty: DifficultyConfig | None, name: str) -> Prompt:
    return Prompt(
        id=f"{name}/{problem.id}" if name else problem.id,
        text=text,
        tokens=tokens,
        ground_truth=problem.ground_truth,
        source=problem.source,
        messages=tuple(instructed(problem.messages, suffix)),
        row=problem.row,
        passes=read_pass_rate(problem.row, problem.source, difficulty),
        set=name,
    )


def _without_overlap(problems: Sequence[Problem], sets: Sequence[EvaluationSet]) -> list[Problem]:
    if not sets:
        return list(problems)
    matches = matches_by_set(without_instruction([problem.text for problem in problems]), sets)
    overlapping = {match.here for found in matches for match in found if match.overlap}
    return [problem for position, problem in enumerate(problems) if position not in overlapping]


def _render(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, suffix: str, options: dict[str, Any]) -> list[str]:
    """Chat-template texts; `BREAK` follows the first character of every added token that a prompt spells."""
    spelled = added_token_pattern(tokenizer)
    return [_chat_text(problem, tokenizer, spelled, suffix, options) for problem in problems]


def _chat_text(problem: Problem, tokenizer: PreTrainedTokenizerBase, spelled: re.Pattern[str], suffix: str, options: dict[str, Any]) -> str:
    messages = [{**message, "content": spelled.sub(rf"\g<0>{BREAK}", message["content"])} for message in problem.messages]
    messages = instructed(messages, suffix)
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))
    except (jinja2.TemplateError, TypeError) as error:  # the template adds a text to a number, or calls what is none
        raise Refused(
            f"{problem.source}: the chat template refuses it ({error}); check its roles and data.chat_template_options"
        ) from error


def added_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the first character of every added token, overlaps included; tokens of white space are harmless."""
    tokens = [re.escape(token) for token in tokenizer.get_added_vocab() if len(token.strip()) > 1]
    return re.compile(rf"(?=(?:{'|'.join(tokens)})).", re.DOTALL) if tokens else re.compile(r"(?!)")


def _tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    pieces = [text.split(BREAK) for text in texts]
    encoded = iter(tokenizer([piece for parts in pieces for piece in parts], add_special_tokens=False, verbose=False)["input_ids"])
    return [tuple(token for _ in parts for token in next(encoded)) for parts in pieces]
