"""`polaris rollouts export RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from polaris.commands.parser import check_output, count
from polaris.errors import Refused

DESCRIPTION = """\
Write the rollouts that a run has kept (observe.samples_per_step of each step; prompts x samples keeps all) as chat .jsonl, which
`polaris sft` reads: rejection sampling. Equal responses to a problem are written once, responses that were cut off never. Rows of later
steps come first."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `rollouts`."""
    actions = commands.add_parser("rollouts", help="a run's kept rollouts as data").add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser("export", help="write them as conversations for `polaris sft`", description=DESCRIPTION)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--correct", action="store_true", help="only correct responses")
    parser.add_argument("--per-problem", type=count, metavar="N", help="at most N responses to one problem (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE.jsonl", help="default: RUN/rollouts.jsonl")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the file, and say how many rollouts are in it. Raises `ValueError` for a run without any."""
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.config.schema import RunConfig
    from polaris.data.sources import write_rows
    from polaris.observe.kept import conversations

    folder, output = options.run_folder, options.output or options.run_folder / "rollouts.jsonl"
    check_output(output, folder)
    record = RunFolder(folder).record()
    if record is None or not isinstance(record.config, RunConfig):
        raise Refused(f"{folder} is no run of `polaris train`; give the folder of one, such as runs/quickstart")
    if record.config.rollout.episode is not None:
        raise Refused(f"{folder} has responses of several turns (rollout.episode), of which the policy wrote only parts; they are no turn")
    found = conversations(folder, options.correct, options.per_problem)
    if not found.rows:
        raise Refused(f"no rollout is left: {found}; train longer, or leave --correct out")
    write_rows(output, found.rows)
    print(f"{found}; wrote {output}")
