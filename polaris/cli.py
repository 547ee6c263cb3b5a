"""`polaris COMMAND`: parse and dispatch. Importing this file, and `--help`, load neither torch nor vllm."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polaris import __version__
from polaris.commands import data, difficulty, eval, grade, rollouts, temperature
from polaris.commands.parser import Parser


def main() -> None:
    """Entry point of the console script; exit status 2 on bad input, 130 after Ctrl-C."""
    parser = _parser()
    # What follows `train` or `sft` belongs to polaris.train or polaris.sft, its --help included.
    try:
        if sys.argv[1:2] == ["train"]:
            from polaris import train

            sys.exit(train.main(sys.argv[2:]))
        if sys.argv[1:2] == ["sft"]:
            from polaris import sft

            sys.exit(sft.main(sys.argv[2:]))
        named = [eval.COMPARE, *sys.argv[3:]] if sys.argv[1:3] == eval.COMPARE.split() else sys.argv[1:]
        options = parser.parse_args(named)
        sys.exit(options.run(options) or 0)
    except ValueError as error:
        print(f"polaris: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # commands with an engine take it as a request to stop (`polaris.run.session`)
        sys.exit(130)


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
    export.set_defaults(run=_export)

    report = commands.add_parser("report", help="write report.html and report.png of a run")
    report.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    report.set_defaults(run=_report)

    eval.add(commands)
    grade.add(commands)
    data.add(commands)
    difficulty.add(commands)
    temperature.add(commands)
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
    print(export(run, options.output, options.step if step is None else step))


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
