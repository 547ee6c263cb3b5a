import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from polaris.config.model import ModelConfig
from polaris.errors import Refused
from polaris.model.check import check_checkpoint
from polaris.model.load import locate_model
from polaris.rollout.checkpoint import check_vocabulary, stop_tokens

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


def rename_a_weight(folder, old, new):
    (shard,) = (path for path in folder.glob("*.safetensors") if old in load_file(path))
    save_file({new if name == old else name: weight for name, weight in load_file(shard).items()}, shard)


def test_a_whole_sharded_checkpoint_passes(folder):
    check_checkpoint(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: configure(f, model_type="nosuch"), "transformers cannot build this model"),
        (lambda f: configure(f, layer_types=["full_attention", "linear_attention"]), "linear_attention"),
        (lambda f: configure(f, vocab_size=100), r"\(96, 32\), but config.json asks for \(100, 32\)"),
        (lambda f: configure(f, num_hidden_layers=3, layer_types=None), "lacks 11 of"),
        (lambda f: first_shard(f).unlink(), "lacks"),
        (drop_a_weight, "lacks 1 of"),
        (lambda f: rename_a_weight(f, "model.norm.weight", "norm.bias"), r"such as model\.norm\.weight; it holds 1 .* such as norm\.bias"),
        (lambda f: first_shard(f).write_bytes(b""), "not a complete safetensors file"),
        (lambda f: first_shard(f).write_bytes(first_shard(f).read_bytes()[:-10]), "not a complete safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        check_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "qwen3", "vocab_size": "many"}'])
def test_a_damaged_config_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        locate_model(ModelConfig(path=str(folder)))


def adapter(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-4B"}')
    (folder / "config.json").unlink()


def gguf(folder):
    without_weights(folder)
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


def pickled(folder):
    without_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def without_weights(folder):
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        path.unlink()


def own_code(folder):
    configure(folder, model_type="internlm2", auto_map={"AutoConfig": "configuration_internlm2.InternLM2Config"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (adapter, r"adapter of Qwen/Qwen3-4B.*merge_and_unload"),
        (gguf, "GGUF.*the checkpoint that they were made from"),
        (pickled, r"pickle files \(\*\.bin\).*save_pretrained"),
        (without_weights, r"config\.json but no weights"),
        (lambda f: first_shard(f).unlink(), r"lacks 1 of \d+ files that its index lists, such as model-00001-of"),
        (own_code, r"code of its own \(auto_map"),
        (lambda f: configure(f, model_type="nosuch"), "'nosuch' is unknown"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    ],
)
def test_what_is_not_a_whole_model_is_named_with_the_way_to_one(folder, change, message):
    change(folder)
    with pytest.raises(Refused, match=message) as refused:
        locate_model(ModelConfig(path=str(folder)))
    assert "\n" not in str(refused.value)


def test_a_file_instead_of_a_folder_is_named(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(Refused, match="is a GGUF file"):
        locate_model(ModelConfig(path=str(tmp_path / "model.gguf")))


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes", "gptq"])
def test_quantised_weights_are_named(folder, method):
    configure(folder, quantization_config={"quant_method": method})
    with pytest.raises(Refused, match=rf"quantised \({method}\).*made from"):
        check_checkpoint(folder)


def test_a_model_of_pictures_is_named(tmp_path):
    """As the hub's Gemma 3: a text model inside."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {"vocab_size": 96, "hidden_size": 32}}))
    with pytest.raises(Refused, match="takes more than text"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize("stop", [96, -1, [1, 200]])
def test_a_stop_token_outside_the_vocabulary_is_refused(folder, stop):
    configure(folder, eos_token_id=stop)
    with pytest.raises(Refused, match=r"eos_token_id .* outside the model's vocabulary of 96 tokens"):
        stop_tokens(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused_where_prompts_use_it():
    from polaris.embedded.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    size = len(tokenizer)
    check_vocabulary([(1, 2), (size - 2,)], size - 1, tokenizer)
    with pytest.raises(Refused, match=rf"the tokenizer has {size} tokens and the model's embedding {size - 1}: .*resize_token_embeddings"):
        check_vocabulary([(1, 2), (size - 1,)], size - 1, tokenizer)
