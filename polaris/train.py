"""Train a model: `torchrun -m polaris.train [CONFIG] [--section.key=value ...] [--fresh | --change] [--from RUN [--with-optimizer]]`.

The same program runs on one CPU process, one GPU, or many nodes; only the configuration differs. Without CONFIG it runs the quickstart's
(configs/quickstart.toml), which trains a tiny model of its own. Write a CONFIG for a model or data of yours. The same command again
resumes the run.

  --fresh           set an existing run aside and start anew
  --change          resume with values that alter the results of later steps, such as another optimizer.lr
  --from RUN        start a new run with the weights of another, such as runs/x (its newest checkpoint) or runs/x@step-40
  --with-optimizer  and with its optimizer's moments
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from polaris.errors import Refused
from polaris.run.session import run_here, run_session
from polaris.stop import StopRequest

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
    return run_session(lambda: prepare(arguments), train_prepared, lambda prepared: prepared[0].config.distributed)


def prepare(arguments: list[str]) -> tuple[Checked, RunFolder]:
    """Configuration, checks and run folder; whatever is wrong is a ValueError before any weight is read."""
    from polaris.config.load import QUICKSTART, load_config

    flags, rest = _flags(arguments)
    given = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    config = load_config(given or QUICKSTART, rest)

    checked, folder = _check(config, **flags)
    return replace(checked, file=_named(given, QUICKSTART, rest)), folder


def train(config: RunConfig, *, fresh: bool = False, change: bool = False) -> Path:
    """Train inside your own program, in one process or under torchrun, and return the run's folder.

    A run that is there already is resumed; `fresh` and `change` are the options `--fresh` and `--change` of the command. In the main
    thread Ctrl-C and SIGTERM are heard as by the command. With the vLLM engine, train once in a process.

    >>> from polaris import load_config, train
    >>> train(load_config("my.toml", ["--optimizer.lr=2e-6"]))  # doctest: +SKIP
    PosixPath('runs/my-run')

    Raises:
        Refused: the configuration cannot be trained; the message names the remedy.
        RunFailed: the run could not go on, or made no update.
        SystemExit: a signal has asked for the stop, and the run is saved.

    With several ranks a failure ends the process with its status, as the command does: other ranks may wait for this one.
    """
    from polaris.checkpoint import run_folder

    try:
        prepared = _check(config, fresh=fresh and _is_first_attempt(), change=change)
        run_here(lambda world, stop: train_prepared(prepared, world, stop), config.distributed)
    finally:
        run_folder.release()
    return prepared[1].path


def _check(config: RunConfig, **start: Any) -> tuple[Checked, RunFolder]:
    from polaris.checkpoint.branch import Start
    from polaris.recipe.final import check_final
    from polaris.run import checks

    return checks.prepare(config, Start(**start), check_final)


def _is_first_attempt() -> bool:
    """False where torchrun has started its ranks again: they resume."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def _named(given: Path | None, quickstart: Path, overrides: list[str]) -> str:
    """The file that the configuration was read from, in words."""
    if given is not None:
        return str(given)
    own = {word.partition("=")[0] for word in overrides} & {"--model.path", "--data.path"}
    unsuited = "; its other settings suit its own tiny model and problems: docs/own_model.md shows a CONFIG for yours" if own else ""
    return f"{quickstart}, the built-in quickstart, since no CONFIG is given{unsuited}"


def _flags(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options that are no fields of the configuration, as those of `Start`, and the other arguments."""
    flags: dict[str, Any] = {"fresh": False, "change": False, "with_optimizer": False, "source": ""}
    words, rest = list(arguments), []
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name == "--from":
            flags["source"] = value if equals or not words else words.pop(0)
            if not flags["source"] or flags["source"].startswith("-"):
                raise Refused("--from has no value; write --from RUN or --from RUN@step-40")
        elif name in ("--fresh", "--change", "--with-optimizer"):
            if equals:
                raise Refused(f"{name} takes no value; write {name} alone, or leave it out")
            flags[name[2:].replace("-", "_")] = name != "--fresh" or _is_first_attempt()
        else:
            rest.append(name + equals + value)
    return flags, rest


def train_prepared(prepared: tuple[Checked, RunFolder], world: World, stop: StopRequest) -> None:
    """Open or resume the run, train all stages or until a stop, export, evaluate, and write the report.

    Raises:
        NothingTrained: all steps have passed without an update; nothing is exported.
    """
    from polaris.checkpoint.run_folder import record_config
    from polaris.observe.metrics import read_records
    from polaris.observe.report import summary, write_report
    from polaris.recipe.final import finish
    from polaris.recipe.run import run
    from polaris.run.banner import banner
    from polaris.run.checks import check_ranks
    from polaris.run.resume import resume
    from polaris.run.setup import open_recorder, open_training
    from polaris.run.untrained import NothingTrained, why_untrained

    checked, folder = prepared
    check_ranks(checked, folder, world)
    with open_training(checked, world, stop) as context:
        with stop.at_once():
            state = resume(context, folder, checked.origin)
        context.console.resumed(state.step)
        context.console.banner(banner(checked, context, folder, state))
        recorder = open_recorder(context, folder, state.step)
        if world.is_main:
            record_config(folder, context.config, checked.content, checked.origin, state.step)
        state = run(context, folder, state, recorder)
        recorder.close()
    console, config = context.console, context.config
    del context  # the policy's memory belongs to the final evaluation's engine now
    stopped = world.any(stop.requested())
    if state.step == config.steps and not stopped:
        if state.version == 0:
            if world.is_main:
                write_report(folder.path)
            raise NothingTrained(why_untrained(read_records(folder.metrics), config))
        stopped = not finish(config, folder, world, stop)
    if world.is_main:
        console.finish(summary(folder.path), write_report(folder.path), stopped)


class _Callable(ModuleType):
    """`from polaris import train` gives this module, whatever was imported before, and it is called like its function."""

    def __call__(self, config: RunConfig, *, fresh: bool = False, change: bool = False) -> Path:
        return train(config, fresh=fresh, change=change)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
