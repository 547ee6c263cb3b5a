"""Evaluate a model: `torchrun -m polaris.evaluate --model M --suite SETS [options]`, or `polaris eval` in one process.

Starting the same command again goes on where it was stopped.
"""

from __future__ import annotations

import sys

from polaris.commands.eval import evaluate
from polaris.commands.parser import Parser
from polaris.evaluation.options import DESCRIPTION, add_options


def main(arguments: list[str]) -> int:
    """Exit status as `run_session`."""
    parser = Parser(prog="python -m polaris.evaluate", description=DESCRIPTION)
    add_options(parser)
    return evaluate(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
