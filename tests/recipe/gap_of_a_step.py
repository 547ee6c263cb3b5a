"""`gap_of_a_step.py CONFIG ROOT ENGINE TEMPERATURE`: prints the largest difference between the engine's log-probs and those of the
trainer's forward in a step of training at a temperature."""

import sys
from pathlib import Path

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.load import load_config
from polaris.distributed import mesh
from polaris.recipe.plan import plan_stages, stage_config
from polaris.run.checks import check
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.stop import StopRequest


def main() -> None:
    config_file, root, engine, temperature = sys.argv[1:]
    world = mesh.start()
    checked = check(load_config(config_file, [f"--root={root}", f"--rollout.engine={engine}"]))
    with open_training(checked, world, StopRequest()) as context:
        state = resume(context, RunFolder(Path(root)))
        config = stage_config(context.config, plan_stages(context.config)[0], float(temperature))
        _, record, _ = train_step(context.with_config(config), state)
    mesh.stop()
    print("gap", record["mismatch/logprob_gap_max"])


if __name__ == "__main__":
    main()
