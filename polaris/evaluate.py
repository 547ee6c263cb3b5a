"""Evaluate a model: `torchrun -m polaris.evaluate --model M --suite SETS [options]`, or `polaris eval` in one process.

Starting the same command again goes on where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.commands.eval import DESCRIPTION, add_options, named_as_options, settings_of
from polaris.commands.parser import Parser
from polaris.session import run_session
from polaris.trainer.signals import StopRequest

if TYPE_CHECKING:
    import argparse

    from polaris.distributed.mesh import World
    from polaris.evaluation.settings import EvalSettings


def main(arguments: list[str]) -> int:
    """Exit status as `run_session`."""
    parser = Parser(prog="python -m polaris.evaluate", description=DESCRIPTION)
    add_options(parser)
    return evaluate(parser.parse_args(arguments))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate as the options say, say the scores, and return the exit status of `main`."""
    folder = options.output or Path("runs") / f"eval-{_name(options.model)}"

    def work(settings: EvalSettings, world: World, stop: StopRequest) -> None:
        from polaris.evaluation.markdown import announcement
        from polaris.evaluation.run import evaluate_suites

        with named_as_options():
            result = evaluate_suites(settings, folder, world, stop)
        if world.is_main:
            print(announcement(result, folder))

    return run_session(lambda: settings_of(options), work)


def _name(model: str) -> str:
    """`M` of `anywhere/M` and `embedded-M` of `embedded:M`; of a run's export the run's name too."""
    path = Path(model.replace(":", "-"))
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "export" else path.name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
