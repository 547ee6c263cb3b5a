"""`polaris difficulty CONFIG`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.commands.parser import add_config
from polaris.errors import Refused

if TYPE_CHECKING:
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.distributed.mesh import World
    from polaris.run.checks import Checked
    from polaris.stop import StopRequest

DESCRIPTION = """\
Measure how often the model solves each prompt (difficulty.samples_per_prompt responses at difficulty.temperature), and choose
the prompts for training as [curation] says. Writes difficulty.parquet, difficulty.json, curation.json and curation.png into
stages/ of the run's folder; training with the same configuration uses them. An interrupted pass continues where it stopped.
On several GPUs: `torchrun -m polaris.cli difficulty CONFIG`."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `difficulty`."""
    parser = commands.add_parser(
        "difficulty", help="measure the difficulty of every prompt, and choose those to train on", description=DESCRIPTION
    )
    add_config(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, curate, print the histograms before and after; returns the exit status of `run_session`."""
    from polaris.run.session import run_session

    return run_session(lambda: prepare(options.config, options.overrides), measure, lambda prepared: prepared[0].config.distributed)


def prepare(path: Path, overrides: list[str]) -> tuple[Checked, RunFolder]:
    """The checked configuration and its run folder. Raises `ValueError` for a configuration without a difficulty pass."""
    from polaris.config.load import load_config
    from polaris.run import checks

    config = load_config(path, overrides)
    if config.difficulty.samples_per_prompt == 0:
        raise Refused("difficulty.samples_per_prompt = 0 means no difficulty pass; set it (the recipe: 8)")
    return checks.prepare(config)


def measure(prepared: tuple[Checked, RunFolder], world: World, stop: StopRequest) -> None:
    """Run the difficulty pass and curation with the model of the configuration."""
    from polaris.data.selection import fewer_verdicts
    from polaris.observe.console import Console
    from polaris.observe.phrases import histogram, nearest_rates
    from polaris.recipe.curation import curate_prompts
    from polaris.recipe.difficulty import measure_difficulty
    from polaris.run.checks import check_ranks
    from polaris.run.setup import open_sampling

    checked, folder = prepared
    check_ranks(checked, folder, world)
    prompts = checked.prompts.prompts
    with open_sampling(checked, world, stop, Console(world.is_main, 0)) as context:
        measured = measure_difficulty(context, prompts, folder.stages)
        curation = curate_prompts(context, prompts, measured, folder.stages)
        written = f"wrote {folder.stages}/difficulty.parquet, difficulty.json, curation.json and curation.png"
        samples = checked.config.difficulty.samples_per_prompt
        fewer = nearest_rates(fewer_verdicts(measured.counts.values(), samples), samples)
        for line in filter(None, (*histogram(curation.before, curation.after), fewer, written)):
            context.console.note(line)
