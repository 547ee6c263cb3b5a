"""Evaluate a model: `torchrun -m polaris.evaluate --model M --suite SETS [options]`, or `polaris eval` in one process.

Starting the same command again goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from polaris.commands.callable_module import CallableModule
from polaris.commands.eval import default_folder
from polaris.commands.eval import evaluate as evaluate_options
from polaris.commands.parser import Parser
from polaris.config.model import ModelConfig
from polaris.config.names import instead
from polaris.config.training import DistributedConfig
from polaris.errors import Refused
from polaris.evaluation.options import DESCRIPTION, add_options
from polaris.evaluation.settings import PAPER, EvalSettings, buckets_for
from polaris.run.session import run_here


def main(arguments: list[str]) -> int:
    """Exit status as `run_session`."""
    parser = Parser(prog="python -m polaris.evaluate", description=DESCRIPTION)
    add_options(parser)
    return evaluate_options(parser.parse_args(arguments))


def evaluate(model: str | Path, suite: str | Sequence[str], *, output: Path | str | None = None, **settings: Any) -> dict[str, Any]:
    """Evaluate inside your own program, and return what `result.json` holds. The same call again resumes a stopped evaluation.

    Args:
        model: a folder, a name on the hub, `embedded:model`, or a run, such as `runs/x` (its newest export).
        suite: named sets, files, folders or datasets; docs/evaluation.md.
        output: folder of samples and results, by default `runs/eval-<model>`.
        settings: fields of `polaris.evaluation.settings.EvalSettings`, such as `samples_per_prompt=4`, `temperature=1.0`,
            `max_response_tokens=512`, `rollout=RolloutConfig(engine="transformers")`. Defaults are the paper's.

    >>> from polaris import evaluate
    >>> evaluate("runs/my-run", "test.jsonl", samples_per_prompt=4, max_response_tokens=512)["results"]  # doctest: +SKIP

    Raises:
        Refused: a setting, model or set cannot be used; the message names the remedy.
        SystemExit: a signal has stopped it; finished samples are on disk.
    """
    known = {field.name for field in fields(EvalSettings)}
    for name in settings.keys() - known:
        raise Refused(f"evaluate has no setting {name!r}; {instead(name, known, 'EvalSettings')}")
    length = settings.get("max_response_tokens", PAPER.max_response_tokens)
    given: dict[str, Any] = {"model": ModelConfig(path=str(model)), "buckets": buckets_for(length)}
    chosen = EvalSettings(suite=(suite,) if isinstance(suite, str) else tuple(suite), **(given | settings))
    folder = default_folder(str(model)) if output is None else Path(output)
    found: dict[str, Any] = {}

    def work(world: Any, stop: Any) -> None:
        from polaris.evaluation.run import evaluate_suites

        found.update(evaluate_suites(chosen, folder, world, stop))

    run_here(work, DistributedConfig())
    return found


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
