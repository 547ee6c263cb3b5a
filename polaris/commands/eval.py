"""`polaris eval`: evaluate a model, or a server, on sets of problems; `polaris eval compare`: two results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.evaluation.options import DESCRIPTION, add_options, named_as_options, settings_of
from polaris.run.session import run_session
from polaris.stop import StopRequest

if TYPE_CHECKING:
    from polaris.distributed.mesh import World
    from polaris.evaluation.settings import EvalSettings

COMPARE = "eval compare"
_COMPARED = """\
Compare two results over the same problems: avg@k of A and B on each set that both have, and their difference with a 95 % interval and a
p-value, paired over problems. Refuses other problems or prompts under one name, and names settings that differ."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `eval` and `eval compare`, which is a name of its own, so that `eval` keeps its messages about options."""
    parser = commands.add_parser("eval", help="evaluate a model, or a server, on sets of problems", description=DESCRIPTION)
    add_options(parser)
    parser.set_defaults(run=evaluate)
    both = commands.add_parser(COMPARE, help="does a second result differ from a first beyond chance?", description=_COMPARED)
    both.add_argument("first", type=Path, metavar="A", help="folder of an evaluation, its result.json, or a run with a final evaluation")
    both.add_argument("second", type=Path, metavar="B", help="as A")
    both.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from polaris.evaluation.compare import compare, lines

    print("\n".join(lines(compare(options.first, options.second))))


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate as the options say and print the scores; returns the exit status."""
    folder = options.output or default_folder(options.model)

    def work(settings: EvalSettings, world: World, stop: StopRequest) -> None:
        from polaris.evaluation.markdown import announcement
        from polaris.evaluation.run import evaluate_suites

        with named_as_options():
            result = evaluate_suites(settings, folder, world, stop)
        if world.is_main:
            print(announcement(result, folder))

    return run_session(lambda: settings_of(options), work)


def default_folder(model: str) -> Path:
    """`runs/eval-M` for `anywhere/M`, `eval-embedded-M` for `embedded:M`, and `eval-RUN-M` for a run's export."""
    path = Path(model.replace(":", "-"))
    return Path("runs") / f"eval-{f'{path.parents[1].name}-{path.name}' if path.parent.name == 'export' else path.name}"
