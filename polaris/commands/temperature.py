"""`polaris temperature CONFIG`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from polaris.commands.parser import add_config

if TYPE_CHECKING:
    from polaris.checkpoint.run_folder import RunFolder
    from polaris.distributed.mesh import World
    from polaris.run.checks import Checked
    from polaris.stop import StopRequest

DESCRIPTION = """\
Sample the configuration's model at every temperature of probe.temperatures, on the first probe.prompts held-out prompts (training
prompts without eval.path), and print accuracy, diversity and the three zones. The result and a picture go into the run's folder:
stages/temperature-1.json and .png if the first stage has temperature = "probe" or "track", and the run uses it;
stages/temperature-probe.json and .png if not, or if the run itself will probe the prompts that curation leaves (no eval.path, but a
difficulty pass). A killed probe continues where it was; once training with the result has begun, the result is
only printed."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `temperature`."""
    parser = commands.add_parser("temperature", help="find the temperature zones and the initial temperature", description=DESCRIPTION)
    add_config(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Probe and print the table; returns the exit status of `run_session`."""
    from polaris.run.session import run_session

    def prepare() -> tuple[Checked, RunFolder]:
        from polaris.config.load import load_config
        from polaris.run import checks  # takes seconds, and signals are handled by now

        return checks.prepare(load_config(options.config, options.overrides))

    return run_session(prepare, probe, lambda prepared: prepared[0].config.distributed)


def probe(prepared: tuple[Checked, RunFolder], world: World, stop: StopRequest) -> None:
    """The temperature probe of the first stage, with the model of the configuration."""
    from polaris.observe.console import Console
    from polaris.recipe.plan import plan_stages, stage_config
    from polaris.recipe.temperature import TemperatureProbe, probe_temperature
    from polaris.recipe.temperature_table import table
    from polaris.results import Result
    from polaris.run.checks import check_ranks
    from polaris.run.setup import open_sampling

    checked, folder = prepared
    check_ranks(checked, folder, world)
    config, stage = checked.config, plan_stages(checked.config)[0]
    # Without a held-out set the run probes other prompts: those that curation leaves.
    measured = isinstance(stage.temperature, str) and (checked.held_out is not None or not config.difficulty.samples_per_prompt)
    path = stage.temperature_result(folder.stages) if measured else folder.stages / "temperature-probe.json"
    max_tokens = stage_config(config, stage, config.rollout.temperature).rollout.max_response_tokens
    prompts = (checked.held_out or checked.prompts).prompts
    # Once training has begun with a result, it stays.
    result = Result(path).read("temperature", "readings") if measured and folder.newest_checkpoint() else None
    if result is None:
        with open_sampling(checked, world, stop, Console(world.is_main, 0)) as context:
            result = probe_temperature(TemperatureProbe(context, prompts, max_tokens, path))
    console = Console(world.is_main, 0)
    for text in [*table(result), f"initial temperature {result['temperature']:g}; {path} and {path.with_suffix('.png').name}"]:
        console.note(text)
