"""`polaris grade FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from polaris.commands.parser import add_workers, check_output
from polaris.errors import Refused

DESCRIPTION = """\
Grade a .jsonl, .json or .parquet file with one response (a text) or several (a list) per row, or the samples that
lm-evaluation-harness logs. Without an option, a column is the first of these names that the first row has; a dot in a name means a
field of an object. Response: response(s), completion(s), resps, output(s), generation(s), prediction. Gold answer: ground_truth,
reward_model.ground_truth, target, gold, answer. Reference (per response a bool, 0 or 1, or a word such as correct or wrong):
reference, graded (what --output writes), correct, is_correct, expected, verdict(s), exact_match, acc. Id: id, doc_id, extra_info.id,
extra_info.index. Every row is one problem; with --id, rows of the same id are samples of one problem. Rows count from 1,
those of a .jsonl file by line."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `grade`."""
    parser = commands.add_parser("grade", help="grade a file of responses, and compare with another grader", description=DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help=".jsonl, .json or .parquet")
    parser.add_argument("--response", metavar="COLUMN", help="text, or list of texts")
    parser.add_argument("--ground-truth", metavar="COLUMN", help="text, number, or list of alternatives")
    parser.add_argument("--reference", metavar="COLUMN", help="another grader's verdict on each response; '' for none")
    parser.add_argument("--id", metavar="COLUMN", help="rows of the same id are samples of one problem")
    parser.add_argument("--mode", choices=("strict", "deepscaler"), default="strict", help="our rules, or the recipe's published ones")
    parser.add_argument(
        "--require-thinking",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="an answer counts only after </think> (default: if most responses open thinking)",
    )
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="longest time for one answer (default: 5)")
    add_workers(parser)
    parser.add_argument(
        "--output", type=Path, metavar="GRADED.jsonl", help="write the rows with verdict, reason, answer and grader version"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the outcome. Raises `ValueError` for bad input, before anything is graded."""
    from polaris.commands.grading.grade_file import grade_rows, summarise_grades, write_graded
    from polaris.commands.grading.report import grade_report
    from polaris.commands.grading.response_rows import Columns, read_responses
    from polaris.observe.progress import progress
    from polaris.reward.pool import GraderPool
    from polaris.reward.thinking import by_responses, opens_thinking

    check_output(options.output, options.file)
    if not 0 < options.timeout <= 3600:
        raise Refused(f"--timeout {options.timeout} must lie in (0, 3600]")
    columns = Columns(response=options.response, ground_truth=options.ground_truth, reference=options.reference, id=options.id)
    rows = read_responses(options.file, columns)
    thinking = options.require_thinking
    if thinking == "auto":
        thinking = by_responses(opens_thinking(response) for row in rows for response in row.responses).required
    with (
        GraderPool(options.workers, options.timeout, thinking, options.mode) as pool,
        progress("responses", sum(len(row.responses) for row in rows)) as done,
    ):
        graded = grade_rows(rows, pool, done)
    print("\n".join(grade_report(summarise_grades(graded, by_id=options.id is not None), str(options.file), options.mode, thinking)))
    if options.output:
        write_graded(graded, options.output, options.mode)
        print(f"wrote {options.output}")
