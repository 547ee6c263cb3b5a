"""From the names of evaluation sets to problems whose text ends with the instruction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from polaris.config.names import shown
from polaris.data.gold import Check, Rejected
from polaris.data.named_sets import NAMED_SETS, spelled
from polaris.data.problems import Problem, instructed, read_problems, rejected, repeated
from polaris.data.reading import Reading
from polaris.data.sources import FILE_FORMATS, is_set
from polaris.doors import GYM, is_gym, is_own
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.evaluation.settings import EvalSettings
from polaris.reward.answer_pattern import pattern
from polaris.reward.built_in import MultipleChoice
from polaris.reward.extract import BOXED
from polaris.reward.grade import ungradable_reason
from polaris.reward.protocol import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One set. `problems` are gradable and end with the instruction; `rejected` rows have an answer that no response can equal;
    `repeated` is the number of rows with id and content of an earlier one.

    `sha256` covers the gradable problems (id, messages, ground truth) in their order, not their file.
    """

    name: str
    path: str
    samples: int
    problems: tuple[Problem, ...]
    rejected: tuple[Rejected, ...]
    repeated: int
    sha256: str
    rules: Literal["math", "multiple_choice", "reasoning_gym"] = "math"
    """What grades a response: our math grader, the letter that it chooses, or the scorer of the task of reasoning-gym."""


def load_suites(settings: EvalSettings) -> list[Suite]:
    """The sets, in the order of `settings.suite`.

    Raises:
        ValueError: a set is missing, unreadable, without a gradable answer or named twice, its number of samples is unknown, there are
            options and no set that takes any, or `reward.answer` is no form, or another one than the prompts ask for.
    """
    pattern(settings.reward.answer, "reward.answer")
    if settings.options and not any(map(_is_made, settings.suite)):
        raise Refused("final.options are arguments of a function or of a task of reasoning-gym, and no set is one; remove them")
    suites = [_load(name, path, split, settings) for given in settings.suite for name, path, split in _locate(given, settings)]
    names = [suite.name for suite in suites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(f"two evaluation sets have the name {', '.join(twice)}; rename a file, or name it once")
    _check_form(settings, suites)
    return suites


def _check_form(settings: EvalSettings, suites: Sequence[Suite]) -> None:
    """Raise `Refused` where prompts end with a wish for a box, and answers are looked for elsewhere."""
    form = settings.reward.answer
    asked = any(suite.rules != "multiple_choice" for suite in suites) and BOXED in settings.prompt_suffix
    if asked and BOXED not in form:
        raise Refused(
            f"final.prompt_suffix = {shown(settings.prompt_suffix)} asks for a box, and reward.answer = {form!r} looks for the answer "
            'elsewhere; give final.prompt_suffix that of the training (data.prompt_suffix, which may be "")'
        )


def _locate(given: str, settings: EvalSettings) -> Iterator[tuple[str, str, str]]:
    """Name, path and split of every set that one entry of `suite` means."""
    given = spelled(given)
    if given in NAMED_SETS:
        place = settings.data_folder
        local = [] if place is None else [Path(place).expanduser() / (given + suffix) for suffix in FILE_FORMATS]
        found = next((str(path) for path in local if path.is_file()), None)
        yield given, found or given, settings.split
        return
    path = resolve(given)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        yield folder.stem if is_set(folder) else path.removeprefix(GYM).replace("/", "--"), path, settings.split
        return
    files = sorted(file for file in folder.iterdir() if is_set(file) and file.is_file())
    if not files:
        raise Refused(f"{given} holds no {', '.join(FILE_FORMATS)} file; name a file, or a folder with evaluation sets")
    yield from ((file.stem, str(file), settings.split) for file in files)


def _load(name: str, path: str, split: str, settings: EvalSettings) -> Suite:
    plain = Reading(key="final", system_prompt=settings.system_prompt)
    options = settings.options if _is_made(path) else {}
    reading = plain if name in NAMED_SETS else replace(plain, columns=settings.columns, answer=settings.answer, options=options)
    rules, check = _rules(name, path)
    read = read_problems(path, split, reading=reading, check=check)
    samples = NAMED_SETS[name].samples if settings.samples_per_prompt is None and name in NAMED_SETS else settings.samples_per_prompt
    if samples is None:
        raise Refused(f"the paper gives no number of samples for {name}; give final.samples_per_prompt")
    errors = [rejected(problem, check) for problem in read]
    usable = [problem for problem, error in zip(read, errors, strict=True) if not error]
    problems = tuple(replace(problem, messages=instructed(problem.messages, settings.prompt_suffix)) for problem in usable)
    if not problems:
        raise Refused(f"{path} has no gradable answer; `polaris data check {path}` says why")
    return Suite(
        name=name,
        path=path,
        samples=samples,
        problems=problems,
        rejected=tuple(error for error in errors if error),
        repeated=repeated(read),
        sha256=_digest(problems),
        rules=rules,
    )


def _is_made(path: str) -> bool:
    return is_gym(path) or is_own(path)


def _rules(name: str, path: str) -> tuple[Literal["math", "multiple_choice", "reasoning_gym"], Check]:
    """What grades a set, and what it says of a ground truth."""
    if is_gym(path):
        return "reasoning_gym", lambda _: None
    if name in NAMED_SETS and NAMED_SETS[name].choices:
        return "multiple_choice", MultipleChoice(Rules()).check
    return "math", ungradable_reason


def _digest(problems: tuple[Problem, ...]) -> str:
    facts = [[problem.id, problem.messages, problem.ground_truth] for problem in problems]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
