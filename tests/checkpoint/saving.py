"""A saver whose words nobody reads, and one save that is waited for."""

from polaris.checkpoint import layout
from polaris.checkpoint.saver import Saver
from polaris.config.training import CheckpointConfig, DistributedConfig


def open_saver(checkpoints, world, keep=2, on_saved=lambda saved: None, note=lambda text: None, **config):
    return Saver(checkpoints, CheckpointConfig(keep=keep, **config), DistributedConfig(), world, on_saved, note)


def save(checkpoints, state, policy, optimizer, world, keep, kept=()):
    """Returns its folder."""
    with open_saver(checkpoints, world, keep) as saver:
        saver.save(state, policy, optimizer, kept)
    return layout.step_folder(checkpoints, state.step)
