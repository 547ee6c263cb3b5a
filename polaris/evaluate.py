"""Evaluate a model: `torchrun -m polaris.evaluate --model M --suite SETS [options]`, or `polaris eval` in one process.

Starting the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.commands.eval import DESCRIPTION, add_options, settings_of
from polaris.session import run_session
from polaris.trainer.signals import StopRequest

if TYPE_CHECKING:
    from polaris.distributed.mesh import World
    from polaris.evaluation.settings import EvalSettings


def main(arguments: list[str]) -> int:
    """Exit status: 0 evaluated, or stopped on request; 1 it failed; 2 bad input."""
    parser = argparse.ArgumentParser(prog="polaris.evaluate", description=DESCRIPTION)
    add_options(parser)
    return evaluate(parser.parse_args(arguments))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate as the options say, say the scores, and return the exit status of `main`."""
    folder = options.output or Path("runs") / f"eval-{Path(options.model).name.replace(':', '-')}"

    def work(settings: EvalSettings, world: World, stop: StopRequest) -> None:
        from polaris.evaluation.markdown import score_lines
        from polaris.evaluation.run import evaluate_suites

        result = evaluate_suites(settings, folder, world, stop)
        if world.is_main:
            print("\n".join([*score_lines(result), f"wrote {folder / 'result.md'}"]))

    return run_session(lambda: settings_of(options), work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
