"""One training job, from the resume to the report."""

from __future__ import annotations

from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.distributed.mesh import World
from polaris.observe.hook import DONE, STOPPED
from polaris.observe.metrics import read_records
from polaris.observe.report import summary, write_report
from polaris.recipe.final import finish
from polaris.recipe.run import run
from polaris.run.banner import banner
from polaris.run.checks import Checked, check_ranks
from polaris.run.engine_rank import driven_servers
from polaris.run.resume import resume
from polaris.run.setup import open_recorder, open_training
from polaris.run.untrained import NothingTrained, why_untrained
from polaris.stop import StopRequest


def train_and_evaluate(checked: Checked, folder: RunFolder, world: World, stop: StopRequest) -> None:
    """Open or resume the run, train all stages or until a stop, export, evaluate, and write the report.

    Raises:
        NothingTrained: all steps have passed without an update; nothing is exported.
    """
    check_ranks(checked, folder, world)
    with driven_servers(checked, world, stop), open_training(checked, world, stop) as context:
        with stop.at_once():
            state = resume(context, folder, checked.origin)
        context.console.resumed(state.step)
        context.console.banner(banner(checked, context, folder, state))
        recorder = open_recorder(context, folder, state.step)
        if world.is_main:
            record_config(folder, context.config, checked.content, checked.origin, state.step)
        with recorder.heard_failure():
            state = run(context, folder, state, recorder)
        stopped = world.any(stop.requested())
        recorder.close(STOPPED if stopped else DONE)
    console, config = context.console, context.config
    del context  # the policy's memory belongs to the final evaluation's engine now
    if state.step == config.steps and not stopped:
        if state.version == 0:
            if world.is_main:
                write_report(folder.path)
            raise NothingTrained(why_untrained(read_records(folder.metrics), config))
        stopped = not finish(config, folder, world, stop)
    if world.is_main:
        console.finish(summary(folder.path), write_report(folder.path), stopped)
