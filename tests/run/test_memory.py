"""The guard of a start: the plan of the configuration, with the memory that is there."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.plan.shapes import write
from polaris.config.lora import LoraConfig
from polaris.config.model import MemoryConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.errors import Refused, RunFailed
from polaris.model.adapters import add_adapters
from polaris.model.load import build_model
from polaris.plan.advice import refuse_what_does_not_fit
from polaris.plan.shape import shape_of_model
from polaris.run import memory
from polaris.run.memory import advised, check_memory, setup_here

H100 = 79 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model(write("Qwen3-4B", tmp_path_factory.mktemp("model")))


def here(model, config, size, total=H100, longest=17_408, engine="colocated"):
    world = SimpleNamespace(job=SimpleNamespace(size=size), device=torch.device("cuda"))
    return setup_here(model, config, world, "NVIDIA H100 80GB HBM3", total, longest, engine)


def test_the_job_that_torchrun_started_is_what_is_planned(model, monkeypatch):
    config = RunConfig(rollout=RolloutConfig(placement="separate", engine_ranks=4), memory=MemoryConfig(activations="offload"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    found = here(model, config, 16, engine="separate")
    assert (found.gpus, found.nodes, found.ranks, found.engines) == (8, 2, 12, 4)
    assert (found.activations, found.longest, found.card.gib, found.card.hbm) == ("offload", 17_408, 79, 3350)
    assert found.host_gib > 1
    # Nodes of different sizes count as one of all.
    assert (here(model, config, 12).gpus, here(model, config, 12).nodes) == (12, 1)


def test_a_start_that_cannot_fit_is_refused_and_one_that_can_is_not(model, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(Refused, match=r"sampling of 4\.0B parameters on 1 GPU takes"):
        refuse_what_does_not_fit(here(model, RunConfig(), 1))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    refuse_what_does_not_fit(here(model, RunConfig(), 8))
    with pytest.raises(Refused, match=r"an update of 4\.0B parameters on 8 GPUs takes"):
        refuse_what_does_not_fit(here(model, RunConfig(), 8, longest=400_000, engine="none"))
    with pytest.raises(Refused, match="an engine with one sequence"):
        refuse_what_does_not_fit(here(model, RunConfig(rollout=RolloutConfig(gpu_memory_fraction=0.15)), 8))


def test_transformers_engine_takes_its_weights_beside_the_trainer(model, monkeypatch):
    """59.9 GiB of state, 7.5 GiB of weights more in place of 80 % of the GPU; the trainer's float32 shard is 45."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    refuse_what_does_not_fit(here(model, RunConfig(), 1, engine="transformers", longest=2048))


def test_without_a_gpu_nothing_is_refused(model):
    world = SimpleNamespace(device=torch.device("cpu"))
    check_memory(model, RunConfig(), world, longest=10**9, engine="colocated")


def test_an_update_without_memory_ends_with_what_the_plan_advises(model, monkeypatch):
    """And not with a rung that is taken already."""
    gpu = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=H100)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(memory, "host_gib", lambda: 512.0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    world = SimpleNamespace(job=SimpleNamespace(size=1), device=torch.device("cuda"))
    said = []
    for activations, response, tokens in (("recompute", 32_768, 8192), ("offload", 4096, 16_384)):
        config = RunConfig(
            memory=MemoryConfig(activations=activations, optimizer="host"),
            trainer=TrainerConfig(tokens_per_pack=tokens),
            rollout=RolloutConfig(max_response_tokens=response),
        )
        with pytest.raises(RunFailed) as failed, advised(model, config, world):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        said.append(str(failed.value).partition(";")[0])
    assert said[0] == 'CUDA out of memory. Tried to allocate 2.00 GiB. The plan advises: set memory.activations = "offload"'
    assert said[1].endswith("The plan advises: set trainer.tokens_per_pack = 8192")


def test_adapters_are_no_part_of_a_models_shape(model, tmp_path):
    adapted = build_model(write("Qwen3-4B", tmp_path / "model"))
    add_adapters(adapted, LoraConfig(rank=16), torch.bfloat16)
    assert shape_of_model(adapted) == shape_of_model(model)
