import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.schema import ModelConfig
from polaris.model.check import check_checkpoint
from polaris.model.load import locate_model

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False)).save_pretrained(folder, max_shard_size="40KB")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def configure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def first_shard(folder):
    return sorted(folder.glob("*.safetensors"))[0]


def drop_a_weight(folder):
    weights = load_file(first_shard(folder))
    weights.popitem()
    save_file(weights, first_shard(folder))


def test_a_whole_sharded_checkpoint_passes(folder):
    check_checkpoint(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: configure(f, model_type="nosuch"), "transformers cannot build this model"),
        (lambda f: configure(f, layer_types=["full_attention", "sliding_attention"]), "sliding_attention"),
        (lambda f: configure(f, vocab_size=100), r"\(96, 32\), but config.json asks for \(100, 32\)"),
        (lambda f: configure(f, num_hidden_layers=3, layer_types=None), "lacks 11 of"),
        (lambda f: first_shard(f).unlink(), "lacks"),
        (drop_a_weight, "lacks 1 of"),
        (lambda f: first_shard(f).write_bytes(b""), "not a whole safetensors file"),
        (lambda f: first_shard(f).write_bytes(first_shard(f).read_bytes()[:-10]), "not a whole safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        check_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"vocab_size": 8, "max_position_embeddings": "many"}'])
def test_a_damaged_config_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        locate_model(ModelConfig(path=str(folder)))
