"""`polaris data check PATH`, or of all sets of a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.commands.parser import add_workers, check_output
from polaris.errors import Refused

if TYPE_CHECKING:
    from polaris.data.gold import Check
    from polaris.data.problems import Survey
    from polaris.data.reading import Reading

DESCRIPTION = """\
Look at every row of a prompt set, or of all sets that a configuration (.toml) trains on, as it reads and asks them. Lists rows without
a usable problem or answer, rows that repeat an earlier one, types of answers, answers that no response could equal, answers that the
grader does not find correct in a box, repeated problems, prompts that are too long (with --model or a configuration), and problems that
are also in evaluation sets. Rows count from 1, those of a .jsonl file by line. Exit status 2 if two rows have the same id but other
content.
Two problems overlap if their texts are the same (but for case, white space, punctuation and LaTeX for looks), or if shared runs of
13 words cover at least half of one of them. Runs that more than ten problems of one side share are stock phrases and do not count;
a problem of fewer than 13 words can only match exactly; instructions that a set appends are left out."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` with its actions."""
    actions = commands.add_parser("data", help="look after prompt sets").add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser("check", help="find what is wrong with a prompt set, and write a clean one", description=DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help="configuration, .parquet, .json or .jsonl file, or Hugging Face dataset")
    parser.add_argument("--split", help="split of a Hugging Face dataset (default: train)")
    parser.add_argument("--subset", help="configuration of a Hugging Face dataset")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="as data.columns, such as prompt=question")
    parser.add_argument("--answer", help='as data.answer, such as "####" (default: whole)')
    parser.add_argument("--against", nargs="+", action="extend", default=[], metavar="SET", help="evaluation sets: files, names, folders")
    parser.add_argument("--against-split", metavar="SPLIT", help="their split on the hub (default: test)")
    parser.add_argument("--model", metavar="M", help="checkpoint or tokenizer folder, or hub name, to measure prompts with")
    parser.add_argument("--max-prompt-tokens", type=int, metavar="N", help="longest prompt, with --model (default: 1024)")
    parser.add_argument("--output", type=Path, metavar="CLEAN.jsonl", help="write the rows without an error; rows with only a warning stay")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="rows to list for each finding (default: 10)")
    parser.add_argument("--strict", action="store_true", help="exit status 2 for ungradable answers and unusable rows")
    add_workers(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A set to check, and how it is read and asked."""

    name: str
    path: str
    split: str
    reading: Reading
    against: list[str]
    against_split: str
    max_prompt_tokens: int
    model: str | None
    check: Check
    """Why a ground truth is none: what the run's rewards say."""
    chat_template: str | None = None
    prompt_suffix: str = ""
    chat_options: dict[str, bool | str] = field(default_factory=dict)
    in_boxes: bool = True
    """Whether the math grader reads boxes, so that every gold must be correct in one."""


def run(options: argparse.Namespace) -> None:
    """Print the findings and write the clean set. Raises `ValueError` for bad input and, if strict, for ungradable answers."""
    if options.show < 0:
        raise Refused(f"--show {options.show} must not be below 0")
    targets = list(_of_configuration(options) if options.path.lower().endswith(".toml") else _of_set(options))
    if options.output and len(targets) > 1:
        raise Refused(f"{options.path} names {', '.join(one.name for one in targets)}; --output writes one set: give its path")
    for target in targets:
        _check(target, options)


def _of_set(options: argparse.Namespace) -> Iterator[_Target]:
    from polaris.config.data import given_columns
    from polaris.data.reading import Reading
    from polaris.doors import is_gym
    from polaris.reward.grade import ungradable_reason

    columns, gym = given_columns("data", options.column), is_gym(options.path)
    yield _Target(
        name=options.path,
        path=options.path,
        split=options.split or "train",
        reading=Reading(subset=options.subset, columns=columns, answer=options.answer or "whole"),
        against=options.against,
        against_split=options.against_split or "test",
        max_prompt_tokens=1024 if options.max_prompt_tokens is None else options.max_prompt_tokens,
        model=options.model,
        check=(lambda _: None) if gym else ungradable_reason,
        in_boxes=not gym,
    )


def _of_configuration(options: argparse.Namespace) -> Iterator[_Target]:
    from polaris.config.load import load_config
    from polaris.data.reading import held_out_source, training_sources
    from polaris.doors import short
    from polaris.reward.rewards import checked_rewards, ungradable

    config = load_config(options.path)
    own = ("split", "subset", "column", "answer", "against_split", "max_prompt_tokens")
    if given := [f"--{name.replace('_', '-')}" for name in own if getattr(options, name) not in (None, [])]:
        raise Refused(f"{options.path} says itself how its sets are read; change it there, and leave out {', '.join(given)}")
    held_out, rewards = held_out_source(config), checked_rewards(config.reward)
    for source in (*training_sources(config.data), *([held_out] if held_out else [])):
        yield _Target(
            name=short(source.path),
            path=source.path,
            split=source.split,
            reading=source.reading,
            against=[] if source is held_out else [*config.data.decontaminate, *options.against],
            against_split=config.eval.split,
            max_prompt_tokens=config.data.max_prompt_tokens,
            model=options.model or config.model.path,
            chat_template=config.model.chat_template,
            prompt_suffix=config.data.prompt_suffix,
            chat_options=config.data.chat_template_options,
            check=partial(ungradable, rewards),
            in_boxes="math" in config.reward.weights and config.reward.answer == "boxed",
        )


def _check(target: _Target, options: argparse.Namespace) -> None:
    from polaris.commands.dataset.check import check_problems, write_clean
    from polaris.commands.dataset.report import check_report
    from polaris.data.evaluation_sets import read_evaluation_sets
    from polaris.data.problems import instructed, survey
    from polaris.embedded import resolve
    from polaris.observe.progress import progress
    from polaris.reward.grade import accepted
    from polaris.reward.pool import GraderPool
    from polaris.reward.thinking import by_template

    path = resolve(target.path)
    check_output(options.output, Path(path))
    rows = survey(path, target.split, reading=target.reading, check=target.check)
    asked = [replace(problem, messages=instructed(problem.messages, target.prompt_suffix)) for problem in rows.problems]
    rows = replace(rows, problems=asked)
    sets = read_evaluation_sets(target.against, target.against_split)
    rows, prompts = _encoded(rows, target, target.model) if target.model else (rows, None)
    lengths = None if prompts is None else [len(tokens) for _, tokens in prompts]
    with (
        GraderPool(options.workers, 5.0, require_thinking=False) as pool,
        progress("answers", sum(len(accepted(problem.ground_truth)) for problem in rows.problems)) as done,
    ):
        found = check_problems(
            rows.problems,
            sets,
            pool,
            lengths=lengths,
            max_prompt_tokens=target.max_prompt_tokens,
            done=done,
            check=target.check,
            in_boxes=target.in_boxes,
        )
    print("\n".join(check_report(found, rows, target.name, options.show, measured=lengths is not None)))
    if prompts:
        print(by_template(text for text, _ in prompts) or "the chat template does not say whether an answer counts only after </think>")
    if options.output:
        write_clean(found, options.output)
        print(f"wrote {options.output}")
    elif len(found.problems) - len(found.dropped) < rows.rows:
        print("nothing was written; --output CLEAN.jsonl writes the rows that are left")
    _refuse(target.name, options, len(found.ungradable), rows)


def _refuse(name: str, options: argparse.Namespace, ungradable: int, rows: Survey) -> None:
    """Raise `Refused` for ids with two contents and, if strict, for ungradable answers and unusable rows."""
    remedy = f"use {options.output}" if options.output else "write a set without them with --output CLEAN.jsonl"
    if options.strict and (ungradable or rows.broken):
        broken = f" and {len(rows.broken)} unusable rows" if rows.broken else ""
        raise Refused(f"{ungradable} ungradable answers{broken} in {name}; {remedy}")
    if rows.clashes:
        raise Refused(f"{len(rows.clashes)} rows of {name} have the id of another row; make ids unique, or {remedy}")


def _encoded(rows: Survey, target: _Target, model: str) -> tuple[Survey, list[tuple[str, tuple[int, ...]]]]:
    """The rows (problems that the chat template refuses are now broken rows), and the chat text and tokens of each problem."""
    from transformers import AutoTokenizer

    from polaris.data.prompts import encode_texts, without_refused
    from polaris.embedded import resolve

    if Path(model).is_file():
        raise Refused(f"--model {model} is a file; give the folder with the tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    except (OSError, ValueError) as error:
        raise Refused(f"--model {model} has no readable tokenizer ({str(error).splitlines()[0]}); give a folder with one") from error
    if target.chat_template is not None:
        tokenizer.chat_template = target.chat_template
    if not tokenizer.chat_template:
        raise Refused(f"--model {model} has no chat template; use an instruction-tuned model")
    rows = without_refused(rows, tokenizer, target.chat_options)
    return rows, encode_texts(rows.problems, tokenizer, "", target.chat_options)
