"""One rank in this process, whatever engine an earlier test has left behind."""

import sys

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

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
def folder(tmp_path_factory):
    """A tiny Qwen3 with random weights."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trainer(folder, world):
    """It as a float32 policy, and the world."""
    policy = shard(Policy(build_model(folder)), world.mesh, torch.float32)
    load_weights(policy.model, folder, world.device)
    return policy, world
