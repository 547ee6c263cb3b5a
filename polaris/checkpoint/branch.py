"""Starting a run from another run: from its export as `model.path`, or from its checkpoint with `--from`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from polaris.checkpoint import layout
from polaris.checkpoint.export import base_folder, export
from polaris.checkpoint.run_folder import Origin, Part, RunFolder
from polaris.checkpoint.runs import beside, is_run, meant_as_run
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Options of `polaris train` for its start: `--fresh`, `--change`, `--from SOURCE`, `--with-optimizer`."""

    fresh: bool = False
    change: bool = False
    source: str = ""
    with_optimizer: bool = False


Job = TypeVar("Job", RunConfig, SftConfig)
DEFAULT_START = Start()


def begin(config: Job, start: Start) -> tuple[Job, Origin | None]:
    """The configuration, with `model.path` as a folder of weights if it names or comes from another run, and that run.

    A resumed run keeps the step that it began with, even if its source was trained further.

    Raises:
        ValueError: no such run or step, or the resumed run began with something else.
    """
    if start.with_optimizer and not start.source:
        raise Refused("--with-optimizer takes the optimizer of another run; name it with --from RUN")
    own = RunFolder(config.folder)
    begun, record = (False, None) if start.fresh else (own.begun, own.record())
    known = record.origin if record else None
    if record and known and known.part != "export" and not start.source:
        folder = Path(record.config.model.path)
        if not folder.is_dir():
            raise Refused(f"{own.path} began with {known}, whose export {folder} is gone; name its new place with --from RUN@step-N")
        return replace(config, model=replace(config.model, path=str(folder))), known
    given = start.source or config.model.path
    run, step = parse(given)
    if start.source and not is_run(run):
        raise Refused(f"--from {given}: {run} {'is not a run folder' if run.exists() else 'does not exist'}; {beside(run)}")
    if not is_run(run):
        _refuse_missing(run, step, Path(config.root))
        return config, known if begun else None
    if run.resolve() == own.path.resolve():
        raise Refused(f"{given} is this run itself; resume it by the same command without --from, or give another --name for a new run")
    if known and step is None and (begun or known.run == str(run)):
        step = known.step
    part: Part = "weights and optimizer" if start.with_optimizer else "weights" if start.source else "export"
    clash = f"{own.path} exists and began with {known or 'model.path'}, not with {given} ({part}); give another --name, or --fresh"
    if begun and start.source and (known is None or (known.part, known.step) != (part, step)):
        raise Refused(clash)
    if begun and known and known.run != str(run) and known.step not in _steps(run):
        raise Refused(clash)
    if start.source and not begun:
        step = _checkpointed(run, step)
    if start.source and step is not None and _goes_on_with_adapters(config, run, given):
        folder = base_folder(_config_of(run))
    else:
        folder, step = exported(run, step)
    return replace(config, model=replace(config.model, path=str(folder))), Origin(run=str(run), step=step, part=part)


def _config_of(run: Path) -> RunConfig | SftConfig:
    record = RunFolder(run).record()
    assert record is not None
    return record.config


def _goes_on_with_adapters(config: RunConfig | SftConfig, run: Path, given: str) -> bool:
    """Whether the run begins with adapters of `run`, beside the same model; with all weights if not.

    Raises:
        Refused: one of the two trains adapters and the other does not, or others.
    """
    theirs, ours = _config_of(run), config
    merged = f"begin with its model, in which adapters are merged: --model.path={given}"
    rank = theirs.model.lora.rank
    if rank and not ours.model.lora.rank:
        raise Refused(
            f"--from {given}: it has trained adapters, and this run trains all weights; set model.lora.rank to {rank}, or {merged}"
        )
    if not rank and ours.model.lora.rank:
        raise Refused(f"--from {given}: it has trained all weights, which adapters cannot hold; begin with its model: --model.path={given}")
    if not rank:
        return False
    pairs = {
        f"model.lora.{name}": (getattr(theirs.model.lora, name), getattr(ours.model.lora, name)) for name in ("rank", "alpha", "targets")
    }
    pairs |= {"[rope]": (theirs.rope, ours.rope), "model.chat_template": (theirs.model.chat_template, ours.model.chat_template)}
    if other := [name for name, (one, another) in pairs.items() if one != another]:
        raise Refused(
            f"--from {given} goes on with its adapters beside its own base model, so {', '.join(other)} must be as there; copy them from "
            f"{run / 'config.json'}, or {merged}"
        )
    return True


def _checkpointed(run: Path, step: int | None) -> int:
    """The given step, or the newest, if `run` has a complete checkpoint of it."""
    steps = layout.complete_steps(run / "checkpoints")
    if not steps:
        raise Refused(f"--from {run}: it has no complete checkpoint (checkpoints/step-N with {layout.COMMIT}); train it first")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise Refused(
            f"--from {run}@step-{step}: it has complete checkpoints of steps {steps} (see checkpoint.keep); "
            f"use an export with --model.path={run}@step-N"
        )
    return step


def parse(source: str) -> tuple[Path, int | None]:
    """The folder and step of `runs/x@step-40`; the step is None if not given. Raises `Refused` for another spelling of a step."""
    if match := re.fullmatch(r"(.+)@step-(\d+)", source):
        return Path(match[1]).expanduser(), int(match[2])
    run, *rest = re.split(r"@|/checkpoints\b", source, maxsplit=1)
    if rest and is_run(Path(run).expanduser()):
        number = re.search(r"\d+", rest[0])
        raise Refused(f"{source}: a step of {run} is written as {run}@step-{int(number[0]) if number else 40}")
    return Path(source).expanduser(), None


def served(model: str) -> str:
    """The export that `runs/x` or `runs/x@step-40` names; any other model path unchanged.

    Raises:
        Refused: as `exported`, and for a missing run.
    """
    run, step = parse(model)
    if is_run(run):
        return str(exported(run, step)[0])
    _refuse_missing(run, step, Path("runs"))
    return model


def _refuse_missing(run: Path, step: int | None, root: Path) -> None:
    if meant_as_run(run, root) or (step is not None and not run.exists()):
        raise Refused(f"model.path = {run}: there is no such run or folder; {beside(run)}")


def exported(run: Path, step: int | None) -> tuple[Path, int]:
    """The run's export of a step, by default the newest with an export or a complete checkpoint; it is written if missing.

    Ranks that ask at the same time wait for the one that writes. Raises `Refused` for a step with neither.
    """
    folders, steps = _exports(run), _steps(run)
    if not steps:
        raise Refused(f"{run} has neither an export nor a complete checkpoint; train it first")
    if step is not None and step not in steps:
        raise Refused(f"{run} has exports and complete checkpoints of steps {steps} only; name one of them, such as {run}@step-{steps[-1]}")
    step = steps[-1] if step is None else step
    if step in folders:
        return folders[step], step
    folder = run / "export" / f"step-{step:06d}"
    try:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / "config.json").is_file():
                export(run, folder, step)
    except OSError as error:
        raise Refused(f"the export of {run} cannot be written ({error}); write it elsewhere with `polaris export --output`") from None
    return folder, step


def _exports(run: Path) -> dict[int, Path]:
    """The run's exports by step."""
    return {step: path for step, path in layout.step_folders(run / "export").items() if (path / "config.json").is_file()}


def _steps(run: Path) -> list[int]:
    """Steps with an export or a complete checkpoint, oldest first."""
    return sorted(_exports(run).keys() | set(layout.complete_steps(run / "checkpoints")))
