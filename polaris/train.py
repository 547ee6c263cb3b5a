"""Train a model: `torchrun -m polaris.train [CONFIG] [--section.key=value ...] [--fresh | --change] [--from RUN [--with-optimizer]]`.

The same program runs on one CPU process, one GPU, or many nodes; only the configuration differs. Without CONFIG it runs the quickstart's
(configs/quickstart.toml), which trains a tiny model of its own. Write a CONFIG for a model or data of yours. The same command again
resumes the run.

  --fresh           set an existing run aside and start anew
  --change          resume with values that alter the results of later steps, such as another optimizer.lr
  --from RUN        start a new run with the weights of another, such as runs/x (its newest checkpoint) or runs/x@step-40
  --with-optimizer  and with its optimizer's moments
  --dry-run         check everything, show what would be trained and the first prompt as the model reads it
  --version         say which Polaris this is
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polaris import __version__
from polaris.commands.callable_module import CallableModule
from polaris.commands.train_options import is_first_attempt, source_of, start_options
from polaris.errors import Refused
from polaris.run.session import dry_run, run_here, run_session
from polaris.stop import StopRequest, is_main

if TYPE_CHECKING:
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.config.schema import RunConfig
    from polaris.distributed.mesh import World
    from polaris.run.checks import Checked


def main(arguments: list[str]) -> int:
    """Exit status as `run_session`: 0 trained, 1 failed, 2 bad input, 130 or 143 stopped on request and saved."""
    if {"-h", "--help"} & set(arguments):
        from polaris.config.load import describe_fields

        print(__doc__, describe_fields(), sep="\n")
        return 0
    if "--version" in arguments:
        print(__version__)
        return 0
    if "--dry-run" in arguments:
        return dry_run(lambda: _dry_run([argument for argument in arguments if argument != "--dry-run"]))
    return run_session(
        lambda: prepare(arguments),
        _work,
        lambda prepared: prepared[0].config.distributed,
        lambda prepared: prepared[0].config.rollout.roles,
        _sample,
    )


def prepare(arguments: list[str]) -> tuple[Checked, RunFolder]:
    """Configuration, checks and run folder; whatever is wrong is a ValueError before any weight is read."""
    flags, file, config = _read(arguments)
    checked, folder = _check(config, **flags)
    return replace(checked, file=file), folder


def _read(arguments: list[str]) -> tuple[dict[str, Any], str, RunConfig]:
    """Options of the start, where the configuration was read from, and the configuration."""
    from polaris.config.load import QUICKSTART, load_config

    flags, rest = start_options(arguments)
    given = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    return flags, source_of(given, QUICKSTART, rest), load_config(given or QUICKSTART, rest)


def _dry_run(arguments: list[str]) -> None:
    from polaris.checkpoint.branch import Start
    from polaris.recipe.final import check_final
    from polaris.run.checks import check_folder, examine
    from polaris.run.dry_run import show

    flags, file, config = _read(arguments)
    start = Start(**flags)
    checked = examine(config, start, check_final)
    if is_main():
        check_folder(checked, start)
        show(replace(checked, file=file), int(os.environ.get("WORLD_SIZE", "1")))


def train(config: RunConfig, *, fresh: bool = False, change: bool = False) -> Path:
    """Train inside your own program, in one process or under torchrun, and return the run's folder.

    A run that is there already is resumed; `fresh` and `change` are the options `--fresh` and `--change` of the command. In the main
    thread Ctrl-C and SIGTERM stop it at the next safe point, a second one at once. With the vLLM engine, train once in a process.

    >>> from polaris import load_config, train
    >>> train(load_config("my.toml", ["--optimizer.lr=2e-6"]))  # doctest: +SKIP
    PosixPath('runs/my-run')

    Raises:
        Refused: the configuration cannot be trained; the message names the remedy.
        RunFailed: the run could not go on, or made no update.
        SystemExit: a signal has stopped it, with status 130 or 143; once training has begun, the run is saved.
        KeyboardInterrupt: Ctrl-C during the checks.

    With several ranks a failure ends the process with its status, as the command does: other ranks may wait for this one.
    """
    from polaris.checkpoint import run_folder

    if isinstance(config, str | Path):
        raise Refused(f"train takes a configuration: train(load_config({str(config)!r}))")
    try:
        prepared = _check(config, fresh=fresh and is_first_attempt(), change=change)
        run_here(
            lambda world, stop: _work(prepared, world, stop),
            config.distributed,
            config.rollout.roles,
            lambda stop: _sample(prepared, stop),
        )
    finally:
        run_folder.release()
    return prepared[1].path


def _work(prepared: tuple[Checked, RunFolder], world: World, stop: StopRequest) -> None:
    from polaris.recipe.job import train_and_evaluate

    train_and_evaluate(*prepared, world, stop)


def _sample(prepared: tuple[Checked, RunFolder], stop: StopRequest) -> int:
    from polaris.run.engine_rank import keep_sampling

    return keep_sampling(prepared[0], stop)


def _check(config: RunConfig, **start: Any) -> tuple[Checked, RunFolder]:
    from polaris.checkpoint.branch import Start
    from polaris.recipe.final import check_final
    from polaris.run import checks

    return checks.prepare(config, Start(**start), check_final)


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
