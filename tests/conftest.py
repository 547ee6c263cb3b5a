"""What tests of several folders share."""

import gc
import os
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_runtest_setup():
    """Let collections of garbage, which vLLM asks for several times per engine, pass over the half million objects of its import; it
    takes that back as an engine ends."""
    if "vllm" in sys.modules and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="module")
def tiny_qwen3(tmp_path_factory):
    """Folder of a tiny Qwen3 with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # takes seconds, and most tests need none

    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


def leave():
    """End the process group, and vLLM's groups before it."""
    from polaris.distributed import mesh

    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    mesh.stop()


@pytest.fixture(scope="module")
def world():
    """One rank in this process, whatever engine an earlier test has left behind."""
    from polaris.distributed import mesh

    leave()
    yield mesh.start()
    leave()


@pytest.fixture(scope="module")
def no_world():
    """No process group, whatever engine an earlier test has left behind: a command of Polaris starts its own."""
    leave()
    yield
    leave()


@pytest.fixture(scope="module")
def trainer(tiny_qwen3, world):
    """A tiny Qwen3 as a float32 policy, and the world."""
    from polaris.distributed.fsdp import shard
    from polaris.model.load import build_model, load_weights
    from polaris.model.policy import Policy

    policy = shard(Policy(build_model(tiny_qwen3)), world.mesh, torch.float32)
    load_weights(policy.model, tiny_qwen3, world.device)
    return policy, world


@pytest.fixture(scope="session")
def declared(tmp_path_factory):
    """PYTHONPATH of programs that find our entry points as pyproject.toml declares them, however old the installed package is."""
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path_factory.mktemp("installed")
    package = folder / "polaris_rl-0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: polaris-rl\nVersion: 0\n")
    groups = (f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()) for group, points in declared.items())
    (package / "entry_points.txt").write_text("".join(groups))
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="session")
def vllm_server(declared, tmp_path_factory):
    """Process and port of vLLM's server of the embedded model, which is being started as our refusals say; the last tests that use it
    end it."""
    from vllm_server import KEY, serving, wanted

    from polaris.embedded import resolve

    command = wanted(resolve("embedded:model")).command("http://127.0.0.1:8000", cuda=False)
    with serving(command, declared, tmp_path_factory.mktemp("server") / "log", KEY) as started:
        yield started


@pytest.fixture
def as_declared(declared, monkeypatch):
    """Programs that the test starts have the PYTHONPATH `declared`."""
    monkeypatch.setenv("PYTHONPATH", declared)
