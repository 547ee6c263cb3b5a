"""Train a model: `torchrun -m polaris.train [CONFIG] [--room.field=value ...] [--fresh]`.

The same program runs on one CPU process, one GPU, or many nodes; only the configuration differs. Without CONFIG it runs
configs/quickstart.toml. Starting the same command again resumes the run; `--fresh` sets an existing run aside and starts anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.trainer.signals import StopRequest

if TYPE_CHECKING:
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.distributed.mesh import World
    from polaris.trainer.setup import Checked


def main(arguments: list[str]) -> int:
    """Exit status: 0 trained, or stopped on request and saved; 1 the run failed; 2 bad input."""
    if {"-h", "--help"} & set(arguments):
        from polaris.config.load import describe_fields

        print(__doc__, describe_fields(), sep="\n")
        return 0
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    stop = StopRequest()
    stop.install()
    try:
        checked, folder = prepare(arguments)
    except ValueError as error:
        return _fail(error, status=2)

    from polaris.distributed import mesh
    from polaris.rollout.types import EngineRefused
    from polaris.sync.probe import WeightSyncError
    from polaris.trainer.breaker import GradingFailed
    from polaris.trainer.step import NonFiniteRun

    world = mesh.start()
    try:
        train(checked, folder, world, stop)
    except EngineRefused as error:
        return _fail(error, status=2)
    except (GradingFailed, NonFiniteRun, WeightSyncError) as error:
        return _fail(error, status=1)
    finally:
        mesh.stop()
    return 0


def prepare(arguments: list[str]) -> tuple[Checked, RunFolder]:
    """Configuration, checks and run folder; whatever is wrong is a ValueError before any weight is read."""
    from polaris.config.load import QUICKSTART, load_config

    fresh = "--fresh" in arguments
    rest = [argument for argument in arguments if argument != "--fresh"]
    path = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else QUICKSTART
    config = load_config(path, rest)

    from polaris.checkpoint.run_folder import open_run
    from polaris.trainer.setup import check

    return check(config), open_run(config, fresh, main=_is_main())


def train(checked: Checked, folder: RunFolder, world: World, stop: StopRequest) -> None:
    """Build or resume, run to the last step or a stop, write the report."""
    from polaris.checkpoint.run_folder import record_config
    from polaris.observe.report import summary, write_report
    from polaris.trainer.loop import run
    from polaris.trainer.resume import resume
    from polaris.trainer.setup import banner, open_recorder, open_rooms

    with open_rooms(checked, world, stop) as rooms:
        state = resume(rooms, folder)
        rooms.console.banner(banner(checked, rooms, folder, state))
        recorder = open_recorder(checked.config, folder, world, state.step)
        if world.is_main:
            record_config(folder, checked.config)
        state = run(rooms, folder, state, recorder)
        recorder.close()
        if world.is_main:
            rooms.console.finish(summary(folder.path), write_report(folder.path), stop.requested())


def _fail(error: Exception, status: int) -> int:
    if _is_main():
        print(f"polaris: {error}", file=sys.stderr)
    return status


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
