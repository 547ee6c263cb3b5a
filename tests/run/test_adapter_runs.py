"""Whole runs that train adapters: resumed, branched, exported, and stopped where adapters do not reach the engine."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from polaris import train
from polaris.checkpoint import layout, run_folder
from polaris.checkpoint.export import export
from polaris.checkpoint.run_folder import RunFolder
from polaris.config.lora import LoraConfig
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.observe.metrics import deterministic, read_records
from polaris.recipe.job import train_and_evaluate
from polaris.rollout.transformers_engine import TransformersEngine
from polaris.run.checks import check_served_apart
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.run.step import train_step
from polaris.stop import StopRequest
from polaris.sync.probe import WeightSyncError

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
# The first run on a new machine builds the embedded model.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LAST = 4
LORA = ["--model.lora.rank=4", "--model.lora.alpha=8", '--model.lora.targets=["q_proj", "down_proj"]', "--optimizer.lr=3e-3"]
SMALL = [
    "--rollout.engine=transformers",
    "--rollout.samples_per_prompt=4",
    "--rollout.max_response_tokens=64",
    "--trainer.prompts_per_step=8",
    "--trainer.cpu_threads=1",
    "--checkpoint.every=2",
    "--eval.every=2",
    "--eval.samples_per_prompt=1",
    "--observe.tensorboard=false",
    "--algorithm.kl=k3",
    "--algorithm.kl_coefficient=0.01",
    f"--trainer.steps={LAST}",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    for name, size in (("train", 24), ("test", 8)):
        rows = Path(resolve(f"embedded:{name}")).read_text().splitlines()[:size]
        (root / f"{name}.jsonl").write_text("\n".join(rows))
    return root


def prepare(root, name, *overrides):
    run_folder._HELD.clear()  # as a new process would begin
    data = [f"--data.path={root / 'train.jsonl'}", f"--eval.path={root / 'test.jsonl'}", f"--root={root}", f"--name={name}"]
    return train.prepare([str(CONFIG), *SMALL, *LORA, *data, *overrides])


def run(world, *given):
    prepared = prepare(*given)
    train_and_evaluate(*prepared, world, StopRequest())
    return prepared[1].path


@pytest.fixture(scope="module")
def straight(world, root):
    return run(world, root, "straight")


def records(path):
    return [deterministic(record) for record in read_records(path / "metrics.jsonl")]


def saved(path, step=LAST):
    """Names and shapes in a checkpoint."""
    return dcp.FileSystemReader(path / "checkpoints" / f"step-{step:06d}").read_metadata().state_dict_metadata


def test_a_resumed_run_is_the_same_bit_for_bit(world, root, straight):
    path = run(world, root, "half", "--trainer.steps=2")
    assert run(world, root, "half") == path
    assert records(path) == records(straight)
    mine, theirs = (load_file(one / "export" / f"step-{LAST:06d}" / "model.safetensors") for one in (path, straight))
    base = load_file(Path(resolve("embedded:model")) / "model.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    moved = {name for name in theirs if not torch.equal(theirs[name], base[name].float())}
    assert {name.split(".")[-2] for name in moved} == {"q_proj", "down_proj"}


def test_a_checkpoint_holds_adapters_and_their_moments_alone(straight):
    names = [name for name in saved(straight) if name.startswith("model.")]
    assert names
    assert [name for name in names if ".lora_" not in name] == []
    moments = [name for name in saved(straight) if name.endswith(".exp_avg")]
    assert len(moments) == len(names)


def test_the_two_exports_are_one_policy(straight, tmp_path):
    merged = AutoModelForCausalLM.from_pretrained(straight / "export" / f"step-{LAST:06d}")
    folder = export(straight, None, None, adapter=True)
    assert folder == straight / "adapter" / f"step-{LAST:06d}"
    assert export(straight, None, LAST, adapter=True) == folder
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    apart = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named), folder)
    base = AutoModelForCausalLM.from_pretrained(named)
    tokens = torch.arange(5, 37)[None]
    with torch.no_grad():
        torch.testing.assert_close(apart(tokens).logits, merged(tokens).logits, rtol=0, atol=1e-4)
        assert float((apart(tokens).logits - base(tokens).logits).abs().max()) > 1e-2
    assert export(straight, tmp_path / "mine", 2, adapter=True) == tmp_path / "mine"
    assert not all(
        torch.equal(value, load_file(folder / "adapter_model.safetensors")[name])
        for name, value in load_file(tmp_path / "mine" / "adapter_model.safetensors").items()
    )


def test_another_run_goes_on_with_the_adapters(world, root, straight):
    checked, folder = prepare(root, "branched", f"--from={straight}@step-{LAST}")
    assert Path(checked.config.model.path) == Path(resolve("embedded:model"))
    with open_training(checked, world, StopRequest()) as context:
        resume(context, folder, checked.origin)
        adapters = {name: value.clone() for name, value in context.learner.policy.named_adapters()}
    held = load_file(export(straight, None, LAST, adapter=True) / "adapter_model.safetensors")
    assert adapters.keys() == {name.removeprefix("base_model.model.") for name in held}
    assert all(torch.equal(value, held[f"base_model.model.{name}"]) for name, value in adapters.items())


def test_what_cannot_go_on_is_refused_with_a_remedy(root, straight):
    with pytest.raises(Refused, match=r"this run trains all weights; set model\.lora\.rank to 4, or .*--model\.path="):
        train.prepare([str(CONFIG), *SMALL, f"--root={root}", "--name=full", f"--from={straight}"])
    with pytest.raises(Refused, match=r"model\.lora\.alpha must be as there; copy them from .*config\.json, or .*--model\.path="):
        prepare(root, "other", f"--from={straight}", "--model.lora.alpha=9")
    with pytest.raises(Refused, match=r"model\.lora\.rank: 4 -> 5.*Go back to the old values"):
        prepare(root, "straight", "--model.lora.rank=5")
    with pytest.raises(Refused, match=r"model\.lora\.targets: \['q_proj', 'down_proj'\] -> \['q_proj'\]"):
        prepare(root, "straight", '--model.lora.targets=["q_proj"]')
    full = root / "trained"
    layout_of(full, straight)
    with pytest.raises(Refused, match=r"it has trained all weights, which adapters cannot hold; begin with its model: --model\.path="):
        prepare(root, "late", f"--from={full}")
    with pytest.raises(Refused, match=r"has trained all weights, and no adapter \(model\.lora\); export the model"):
        export(full, None, None, adapter=True)


def layout_of(folder, like):
    """The folder of a run that trained all weights, as far as it is looked at."""
    record = RunFolder(like).record()
    values = json.loads(record.to_json())
    values["model"]["lora"] = {"rank": 0, "alpha": 32.0, "targets": [], "sync": "merged"}
    checkpoint = layout.step_folder(folder / "checkpoints", 2)
    checkpoint.mkdir(parents=True)
    (checkpoint / layout.COMMIT).write_text('{"files": {}}')
    (folder / "config.json").write_text(json.dumps(values))


def dropped(engine, weights, version):
    """verl #7495: weights are gathered, the version counts up, and the engine has nothing of it."""
    for _ in weights:
        pass
    engine._version = version


def test_a_run_whose_merged_weights_are_dropped_stops_before_its_first_step(world, root, monkeypatch):
    monkeypatch.setattr(TransformersEngine, "load_weights", dropped)
    checked, _ = prepare(root, "dropped")
    with pytest.raises(WeightSyncError, match="adapters do not reach the engine"), open_training(checked, world, StopRequest()):
        pass


@pytest.mark.vllm
def test_a_run_whose_adapters_are_dropped_stops_at_that_step(world, root, monkeypatch):
    pytest.importorskip("vllm")
    from polaris.rollout.vllm_adapter import ServedAdapter

    given = (root, "apart", "--rollout.engine=vllm", "--model.lora.sync=adapter", "--model.dtype=bfloat16", "--optimizer.lr=1e-5")
    checked, folder = prepare(*given)
    with open_training(checked, world, StopRequest()) as context:
        state = resume(context, folder)
        state, record, _ = train_step(context, state)
        assert record["sync/logprob_gap"] <= context.source.proof.yardstick.tolerance
        monkeypatch.setattr(ServedAdapter, "replace", lambda adapter, llm, weights: list(weights))
        with pytest.raises(WeightSyncError, match=r"version 2, the engine does not hold the adapters of the trainer"):
            train_step(context, state)
    checked, _ = prepare(*given)
    with pytest.raises(WeightSyncError, match="adapters do not reach the engine"), open_training(checked, world, StopRequest()):
        pass


def test_an_engine_that_cannot_hold_adapters_is_refused(root):
    with pytest.raises(Refused, match=r'needs a vLLM engine .* rollout\.engine = .transformers.; set .*"merged"'):
        prepare(root, "none", "--model.lora.sync=adapter")
    model = ModelConfig(lora=LoraConfig(rank=8, sync="adapter"))
    for unfit in ({"placement": "separate", "engine_ranks": 1}, {"tensor_parallel": 2}):
        key, value = next(iter(unfit.items()))
        with pytest.raises(Refused, match=rf"this run has rollout\.{key} = {json.dumps(value)}; set model\.lora\.sync"):
            check_served_apart(RunConfig(model=model, rollout=RolloutConfig(**unfit)), "vllm")
    check_served_apart(RunConfig(model=model), "vllm")
