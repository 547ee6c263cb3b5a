"""A hook that keeps what every step has drawn: `step-N.pickle` in the run's folder, with the rollouts of all groups in their order."""

import pickle

from polaris.observe.hook import Hook


class Keep(Hook):
    def on_start(self, config, folder, next_step):
        self._folder = folder

    def on_step(self, record, groups):
        rollouts = [(group.prompt.tokens, scored.rollout) for group in groups for scored in group.rollouts]
        (self._folder / f"step-{record['step']}.pickle").write_bytes(pickle.dumps(rollouts))
