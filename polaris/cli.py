"""`polaris COMMAND`: parse and dispatch. Importing this file, and `--help`, load neither torch nor vllm."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from polaris import __version__
from polaris.commands import data, difficulty, eval, grade, plan, rollouts, temperature
from polaris.commands.parser import Parser


def main() -> None:
    """Entry point of the console script; exit status 2 on bad input, 130 after Ctrl-C."""
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(status)
    except ValueError as error:
        print(f"polaris: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has read enough; what Python flushes on its way out would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:  # commands with an engine take it as a request to stop (`polaris.run.session`)
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    """Run the command; the exit status. What follows `train` or `sft` belongs to polaris.train or polaris.sft, its --help included."""
    if arguments[:1] == ["train"]:
        from polaris import train

        return train.main(arguments[1:])
    if arguments[:1] == ["sft"]:
        from polaris import sft

        return sft.main(arguments[1:])
    named = [eval.COMPARE, *arguments[2:]] if arguments[:2] == eval.COMPARE.split() else arguments
    options = _parser().parse_args(named)
    return options.run(options) or 0


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(prog="polaris", description="Post-train reasoning models with the POLARIS recipe.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("train", help="train in one process; on several GPUs use `torchrun -m polaris.train`", add_help=False)

    commands.add_parser("sft", help="fine-tune on conversations; on several GPUs use `torchrun -m polaris.sft`", add_help=False)

    export = commands.add_parser("export", help="write a run's checkpoint as a Hugging Face folder")
    export.add_argument("run_folder", metavar="RUN", help="the run's folder, such as runs/quickstart or runs/quickstart@step-20")
    export.add_argument("--output", type=Path, help="folder to write (default: RUN/export/step-N)")
    export.add_argument("--step", type=int, help="checkpoint to export (default: the newest)")
    export.add_argument("--adapter", action="store_true", help="write the adapters alone, as a peft folder (RUN/adapter/step-N)")
    export.set_defaults(run=_export)

    report = commands.add_parser("report", help="write report.html and report.png of a run")
    report.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    report.set_defaults(run=_report)

    eval.add(commands)
    grade.add(commands)
    data.add(commands)
    difficulty.add(commands)
    temperature.add(commands)
    plan.add(commands)
    rollouts.add(commands)

    embedded = commands.add_parser("embedded", help="the tiny model and task of the quickstart")
    actions = embedded.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="build model and prompt sets (cached; two or three minutes on two cores)")
    build.add_argument("--force", action="store_true", help="build again although they are there")
    build.set_defaults(run=_build_embedded)

    doctor = commands.add_parser("doctor", help="say what is installed, what is missing, and how to get it")
    doctor.set_defaults(run=_doctor)
    return parser


def _export(options: argparse.Namespace) -> None:
    from polaris.checkpoint.branch import parse
    from polaris.checkpoint.export import export

    run, step = parse(options.run_folder)
    print(export(run, options.output, options.step if step is None else step, adapter=options.adapter))


def _report(options: argparse.Namespace) -> None:
    from polaris.observe.report import write_report

    print(write_report(options.run_folder))


def _build_embedded(options: argparse.Namespace) -> None:
    from polaris.embedded.build import build

    print(build(force=options.force))


def _doctor(options: argparse.Namespace) -> None:
    from polaris.doctor import diagnose

    print(diagnose())


if __name__ == "__main__":
    main()
