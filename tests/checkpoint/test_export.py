"""What transformers loads from an export is what the checkpoint holds; and what cannot be exported is named."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from polaris.checkpoint import layout, shards
from polaris.checkpoint.export import export
from polaris.config.load import dump_config
from polaris.config.model import ModelConfig
from polaris.config.schema import RunConfig
from polaris.errors import Refused
from polaris.model.load import load_tokenizer


@pytest.fixture
def run(tiny_qwen3, tmp_path):
    """A run's folder with checkpoints of steps 2 and 10, whose weights differ; and the weights by step."""
    (tiny_qwen3 / "tokenizer_config.json").write_text("{}")
    folder, weights = tmp_path / "run", {}
    for step in (2, 10):
        model = AutoModelForCausalLM.from_pretrained(tiny_qwen3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * step * torch.randn_like(parameter)
        temporary = layout.temporary_folder(folder / "checkpoints", step)
        temporary.mkdir(parents=True)
        weights[step] = {name: value.detach() for name, value in model.named_parameters()}
        dcp.save({"model": {f"model.{name}": value for name, value in weights[step].items()}}, checkpoint_id=temporary, no_dist=True)
        layout.commit(temporary, layout.step_folder(folder / "checkpoints", step))
    config = dataclasses.replace(RunConfig(), model=ModelConfig(path=str(tiny_qwen3), dtype="bfloat16"))
    (folder / "config.json").write_text(dump_config(config))
    return folder, weights


@pytest.mark.parametrize(("asked", "step"), [(None, 10), (2, 2), (10, 10)])
def test_weights_of_the_newest_or_the_given_step_in_the_compute_dtype(run, asked, step):
    folder, weights = run
    output = export(folder, None, asked)
    assert output == folder / "export" / f"step-{step:06d}"
    assert (output / "tokenizer_config.json").is_file()
    exported = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert exported.dtype == torch.bfloat16
    for name, value in exported.named_parameters():
        assert torch.equal(value, weights[step][name].bfloat16())
    assert exported.config.max_position_embeddings == 32768, "no rope was asked for"
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name], "nothing half written is left"
    written = (output / "config.json").stat().st_mtime_ns
    assert export(folder, None, asked) == output
    assert (output / "config.json").stat().st_mtime_ns == written, "what is there is what is asked for"


def test_weights_are_written_file_by_file(run, tmp_path, monkeypatch):
    folder, weights = run
    sizes, save_file = [], shards.save_file
    monkeypatch.setattr(shards, "LARGEST", 40_000)
    monkeypatch.setattr(shards, "save_file", lambda part, *where, **how: (sizes.append(total(part)), save_file(part, *where, **how)))
    output = export(folder, tmp_path / "sharded", None)
    assert len(sizes) > 3
    assert max(sizes) <= 40_000
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    assert set(index["weight_map"].values()) == {path.name for path in output.glob("*.safetensors")}
    exported = dict(AutoModelForCausalLM.from_pretrained(output, dtype="auto").named_parameters())
    assert all(torch.equal(exported[name], value.bfloat16()) for name, value in weights[10].items())


def total(tensors):
    return sum(tensor.nbytes for tensor in tensors.values())


def test_an_export_has_the_chat_template_that_it_was_trained_with(run):
    folder, _ = run
    record = json.loads((folder / "config.json").read_text())
    base = Path(record["model"]["path"])
    raw = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", chat_template="old").save_pretrained(base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "older"}))
    assert load_tokenizer(export(folder, None, 2)).chat_template == "old"
    record["model"]["chat_template"] = "{{ messages[0].content }}"
    (folder / "config.json").write_text(json.dumps(record))
    output = export(folder, None, 10)
    assert load_tokenizer(output).chat_template == "{{ messages[0].content }}"
    assert "chat_template" not in json.loads((output / "tokenizer_config.json").read_text())
    assert load_tokenizer(base, "{{ 1 }}").chat_template == "{{ 1 }}"


def test_a_folder_of_the_users(run, tmp_path):
    folder, _ = run
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/folder"):
        assert export(folder, tmp_path / name, None) == tmp_path / name
        assert (tmp_path / name / "config.json").is_file()


def test_what_cannot_be_exported_is_named(run, tmp_path):
    folder, _ = run
    with pytest.raises(Refused, match=r"checkpoints of steps \[2, 10\] only"):
        export(folder, None, 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(Refused, match="is not empty"):
        export(folder, tmp_path / "full", None)
    with pytest.raises(Refused, match="is not a folder"):
        export(folder, tmp_path / "full" / "file", None)
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused, match="is not a run folder"):
        export(tmp_path / "other", None, None)
    (tmp_path / "other" / "config.json").write_text("{}")
    with pytest.raises(Refused, match="no complete checkpoint; train it first"):
        export(tmp_path / "other", None, None)
