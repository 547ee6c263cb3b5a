"""`polaris plan CONFIG`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from polaris.commands.parser import Parser, count

DESCRIPTION = """\
What a configuration needs of each GPU, of host memory and of disk, and how long its steps take, before anything is loaded or downloaded
but the model's config.json. It needs no GPU. Exit status 2, with the settings that help, if it does not fit. docs/plan.md says how good the
figures are."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `plan`."""
    parser = commands.add_parser("plan", help="memory and time of a configuration on given GPUs", description=DESCRIPTION)
    _add_machine(parser)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the configuration of `polaris train` or `polaris sft`")
    overrides = parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--section.key=value", help="values that override the file's"
    )
    overrides.required = False
    parser.set_defaults(run=run)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=count, metavar="N", help="GPUs of a node (default: this machine's; 8 if it has none, or with --gpu)")
    parser.add_argument("--nodes", type=count, metavar="N", default=None, help="nodes (default: 1)")
    parser.add_argument("--gpu", metavar="CARD", help='the kind, such as "H100 80GB" or h200 (default: this machine\'s, else H100 80GB)')
    parser.add_argument("--mean-tokens", type=count, metavar="N", help="mean length of a response (default: 40 %% of the limit)")


def run(options: argparse.Namespace) -> None:
    """Print the plan. Raises `Refused` where it does not fit."""
    machine = Parser(prog="polaris plan", add_help=False, allow_abbrev=False)
    _add_machine(machine)
    after, overrides = argparse.ArgumentParser.parse_known_args(machine, options.overrides)
    chosen = {name: value for name, value in vars(after).items() if value is not None}
    options = argparse.Namespace(**vars(options) | chosen)

    from polaris.config.schema import RunConfig
    from polaris.model.rope import resolve_rope
    from polaris.plan.advice import refuse_what_does_not_fit
    from polaris.plan.machine import machine_of
    from polaris.plan.page import lines
    from polaris.plan.read import check_start, read_job
    from polaris.plan.setup import setup_of
    from polaris.plan.shape import config_folder, shape_of
    from polaris.run.checks import check_served_apart

    card, gpus = machine_of(options.gpu, options.gpus)
    config, nodes = read_job(options.config, overrides), options.nodes or 1
    folder = config_folder(config.model)
    shape = shape_of(folder)
    check_start(config, shape.heads, gpus * nodes)
    if isinstance(config, RunConfig):
        config.check_positions(resolve_rope(folder, config.rope).max_positions)
        check_served_apart(config, "vllm")
    setup = setup_of(config, shape, card, gpus, nodes)
    if options.mean_tokens:
        setup = replace(setup, mean_share=min(1.0, options.mean_tokens / setup.stages[-1].response))
    print("\n".join(lines(setup)))
    refuse_what_does_not_fit(setup)
