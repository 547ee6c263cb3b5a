"""One rank in this process, whatever engine an earlier test has left behind."""

import sys

import pytest
import torch

from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy


def leave():
    """End the process group, and vLLM's groups before it."""
    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    mesh.stop()


@pytest.fixture(scope="module")
def world():
    leave()
    yield mesh.start()
    leave()


@pytest.fixture(scope="module")
def trainer(tiny_qwen3, world):
    """A tiny Qwen3 as a float32 policy, and the world."""
    policy = shard(Policy(build_model(tiny_qwen3)), world.mesh, torch.float32)
    load_weights(policy.model, tiny_qwen3, world.device)
    return policy, world
