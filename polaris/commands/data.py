"""`polaris data check PATH`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.commands.parser import add_workers, check_output
from polaris.errors import Refused

if TYPE_CHECKING:
    from polaris.data.problems import Survey

DESCRIPTION = """\
Look at every row of a prompt set. Lists rows without a usable problem or answer, rows that repeat an earlier one, types of answers,
answers that no response could equal, answers that the grader does not find correct in a box, repeated problems, prompts that are too
long (with --model), and problems that are also in evaluation sets. Rows count from 1, those of a .jsonl file by line. Exit status 2
if two rows have the same id but other content.
Two problems overlap if their texts are the same (but for case, white space, punctuation and LaTeX for looks), or if shared runs of
13 words cover at least half of one of them. Runs that more than ten problems of one side share are stock phrases and do not count;
a problem of fewer than 13 words can only match exactly; instructions that a set appends are left out."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` with its actions."""
    actions = commands.add_parser("data", help="look after prompt sets").add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser("check", help="find what is wrong with a prompt set, and write a clean one", description=DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help=".parquet, .json or .jsonl file, or Hugging Face dataset")
    parser.add_argument("--split", default="train", help="split of a Hugging Face dataset (default: train)")
    parser.add_argument("--against", nargs="+", action="extend", default=[], metavar="SET", help="evaluation sets: files, names, folders")
    parser.add_argument("--against-split", default="test", metavar="SPLIT", help="their split on the hub (default: test)")
    parser.add_argument("--model", metavar="M", help="checkpoint or tokenizer folder, or hub name, to measure prompts with")
    parser.add_argument("--max-prompt-tokens", type=int, default=1024, metavar="N", help="longest prompt, with --model (default: 1024)")
    parser.add_argument("--output", type=Path, metavar="CLEAN.jsonl", help="write the rows without an error; rows with only a warning stay")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="rows to list for each finding (default: 10)")
    parser.add_argument("--strict", action="store_true", help="exit status 2 for ungradable answers and unusable rows")
    add_workers(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the findings and write the clean set. Raises `ValueError` for bad input and, if strict, for ungradable answers."""
    from polaris.commands.dataset.check import check_problems, write_clean
    from polaris.commands.dataset.report import check_report
    from polaris.data.evaluation_sets import read_evaluation_sets
    from polaris.data.problems import survey
    from polaris.embedded import resolve
    from polaris.observe.progress import progress
    from polaris.reward.grade import accepted
    from polaris.reward.pool import GraderPool
    from polaris.reward.thinking import by_template

    path = resolve(options.path)
    check_output(options.output, Path(path))
    if options.show < 0:
        raise Refused(f"--show {options.show} must not be below 0")
    rows = survey(path, options.split)
    sets = read_evaluation_sets(options.against, options.against_split)
    rows, prompts = _encoded(rows, options.model) if options.model else (rows, None)
    lengths = None if prompts is None else [len(tokens) for _, tokens in prompts]
    with (
        GraderPool(options.workers, 5.0, require_thinking=False) as pool,
        progress("answers", sum(len(accepted(problem.ground_truth)) for problem in rows.problems)) as done,
    ):
        found = check_problems(rows.problems, sets, pool, lengths=lengths, max_prompt_tokens=options.max_prompt_tokens, done=done)
    print("\n".join(check_report(found, rows, options.path, options.show, measured=lengths is not None)))
    if prompts:
        print(by_template(text for text, _ in prompts) or "the chat template does not say whether an answer needs </think>")
    if options.output:
        write_clean(found, options.output)
        print(f"wrote {options.output}")
    _refuse(options, len(found.ungradable), rows)


def _refuse(options: argparse.Namespace, ungradable: int, rows: Survey) -> None:
    """Raise `Refused` for ids with two contents and, if strict, for ungradable answers and unusable rows."""
    remedy = f"use {options.output}" if options.output else "write a set without them with --output CLEAN.jsonl"
    if options.strict and (ungradable or rows.broken):
        broken = f" and {len(rows.broken)} unusable rows" if rows.broken else ""
        raise Refused(f"{ungradable} ungradable answers{broken} in {options.path}; {remedy}")
    if rows.clashes:
        raise Refused(f"{len(rows.clashes)} rows of {options.path} have the id of another row; make ids unique, or {remedy}")


def _encoded(rows: Survey, model: str) -> tuple[Survey, list[tuple[str, tuple[int, ...]]]]:
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
    if not tokenizer.chat_template:
        raise Refused(f"--model {model} has no chat template; use an instruction-tuned model")
    rows = without_refused(rows, tokenizer)
    return rows, encode_texts(rows.problems, tokenizer, "", {})
