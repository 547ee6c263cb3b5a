"""Fine-tune a model on conversations: `torchrun -m polaris.sft CONFIG [--section.key=value ...] [--fresh | --change]`.

`polaris sft CONFIG` is the same on one device. The same command again resumes the run. Its folder is a run: `polaris export` writes its
model, and `model.path = "runs/NAME"` of a training begins with it.

  --fresh    set an existing run aside and start anew
  --change   resume with values that alter the results of later steps, such as another optimizer.lr
  --dry-run  check everything, and show the first example with what is trained on
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polaris.commands.train_options import start_options
from polaris.errors import Refused
from polaris.run.session import dry_run, run_session
from polaris.stop import StopRequest, is_main

if TYPE_CHECKING:
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.config.sft import SftConfig
    from polaris.distributed.mesh import World
    from polaris.supervised.checks import CheckedSft


def main(arguments: list[str]) -> int:
    """Exit status as `run_session`: 0 trained, 1 failed, 2 bad input, 130 or 143 stopped on request and saved."""
    if {"-h", "--help"} & set(arguments):
        from polaris.config.load import describe_job
        from polaris.config.sft import SftConfig

        print(__doc__, describe_job(SftConfig), sep="\n")
        return 0
    if "--dry-run" in arguments:
        return dry_run(lambda: _dry_run([argument for argument in arguments if argument != "--dry-run"]))
    return run_session(lambda: prepare(arguments), work, lambda prepared: prepared[0].config.distributed)


def _read(arguments: list[str]) -> tuple[dict[str, Any], SftConfig]:
    from polaris.config.load import load_job
    from polaris.config.sft import SftConfig

    flags, rest = start_options(arguments)
    if flags.pop("source") or flags.pop("with_optimizer"):
        raise Refused("--from is an option of `polaris train`; begin with another run by --model.path=runs/NAME")
    if not rest or rest[0].startswith("-"):
        raise Refused("CONFIG is missing; write `polaris sft my.toml` (docs/sft.md has an example)")
    return flags, load_job(SftConfig, Path(rest[0]), rest[1:])


def prepare(arguments: list[str]) -> tuple[CheckedSft, RunFolder]:
    """Configuration, checks and run folder; whatever is wrong is a ValueError before any weight is read."""
    flags, config = _read(arguments)
    from polaris.supervised import checks

    return checks.prepare(config, **flags)


def _dry_run(arguments: list[str]) -> None:
    flags, config = _read(arguments)
    from polaris.supervised.checks import check_folder, examine
    from polaris.supervised.dry_run import show

    checked = examine(config, flags["fresh"])
    if is_main():
        check_folder(checked, **flags)
        show(checked)


def work(prepared: tuple[CheckedSft, RunFolder], world: World, stop: StopRequest) -> None:
    """The fine-tuning itself."""
    from polaris.supervised.job import tune_and_export

    tune_and_export(*prepared, world, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
