"""The `[rope]` block on top of a checkpoint's configuration, in the trainer's model and in the export."""

import json
import math

import pytest
import torch
import torch.distributed.checkpoint as dcp
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from polaris.checkpoint import layout
from polaris.checkpoint.export import export
from polaris.config.load import dump_config
from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.schema import RunConfig
from polaris.model.check import check_checkpoint
from polaris.model.load import build_model
from polaris.model.rope import resolve_rope

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "eos_token_id": 1,
}
PLAIN = {"rope_type": "default", "rope_theta": 5e5}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def write(folder, rope=PLAIN, family=(Qwen3Config, Qwen3ForCausalLM), **sizes):
    config, model = family
    torch.manual_seed(0)
    model(config(**SIZES | sizes, rope_parameters=dict(rope))).save_pretrained(folder)
    return folder


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_without_settings_the_checkpoint_is_left_alone(tmp_path):
    rope = resolve_rope(write(tmp_path, head_dim=48))
    assert (rope.parameters, rope.dimensions, rope.max_positions) == (PLAIN, 48, 128)


@pytest.mark.parametrize("family", [(Qwen2Config, Qwen2ForCausalLM), (LlamaConfig, LlamaForCausalLM)])
def test_yarn_leaves_nothing_to_a_default(tmp_path, family):
    rope = resolve_rope(write(tmp_path, family=family), RopeConfig(factor=1.5))
    assert rope.parameters == {
        "rope_type": "yarn",
        "rope_theta": 5e5,
        "factor": 1.5,
        "original_max_position_embeddings": 128,
        "attention_factor": pytest.approx(0.1 * math.log(1.5) + 1),
        "beta_fast": 32,
        "beta_slow": 1,
        "truncate": True,
    }
    assert (rope.dimensions, rope.max_positions) == (32, 192)


def test_the_block_wins_over_the_checkpoint(tmp_path):
    settings = RopeConfig(factor=2, original_positions=100, attention_factor=1.0, max_positions=1000)
    rope = resolve_rope(write(tmp_path, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, **PLAIN}), settings)
    chosen = {name: rope.parameters[name] for name in ("factor", "original_max_position_embeddings", "attention_factor", "rope_theta")}
    assert chosen == {"factor": 2.0, "original_max_position_embeddings": 100, "attention_factor": 1.0, "rope_theta": 5e5}
    assert rope.max_positions == 1000


def test_more_positions_without_scaling(tmp_path):
    """POLARIS edited Qwen3-4B's 40,960 positions to 131,072 by hand."""
    model = build_model(write(tmp_path), RopeConfig(max_positions=512))
    assert model.config.max_position_embeddings == 512
    assert model.config.rope_parameters == PLAIN


def test_a_checkpoints_own_yarn_is_completed(tmp_path):
    """Qwen's model cards: `rope_scaling` without an attention factor, `max_position_embeddings` as before the extension."""
    write(tmp_path)
    rewrite(
        tmp_path, rope_parameters=None, rope_theta=1e4, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    )
    rope = resolve_rope(tmp_path)
    assert rope.parameters["attention_factor"] == pytest.approx(1.1386294)
    assert (rope.parameters["rope_theta"], rope.max_positions) == (1e4, 256)


def test_what_the_stacks_read_differently_is_refused_until_it_is_replaced(tmp_path):
    """DeepSeek-R1-0528-Qwen3-8B: older vLLM multiplies by `attn_factor`, transformers does not know it."""
    write(tmp_path)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attn_factor": 0.8782488562869419}
    rewrite(tmp_path, rope_parameters=PLAIN | yarn)
    with pytest.raises(ValueError, match=r"attn_factor; set rope\.factor"):
        check_checkpoint(tmp_path)
    settings = RopeConfig(factor=4, attention_factor=1)
    check_checkpoint(tmp_path, settings)
    assert "attn_factor" not in build_model(tmp_path, settings).config.rope_parameters


@pytest.mark.parametrize(
    ("rope", "settings", "message"),
    [
        (LLAMA3, RopeConfig(factor=2), "already scales its rope by llama3"),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, RopeConfig(), "rope of type dynamic"),
    ],
)
def test_a_rope_that_cannot_be_verified_is_refused(tmp_path, rope, settings, message):
    with pytest.raises(ValueError, match=message):
        resolve_rope(write(tmp_path, rope, (LlamaConfig, LlamaForCausalLM)), settings)


def finished(run, base, trained, rope):
    """A run folder with the checkpoint of step 3."""
    writing = layout.temporary_folder(run / "checkpoints", 3)
    dcp.save({"model": {f"model.{name}": p.detach() for name, p in trained.named_parameters()}}, checkpoint_id=writing, no_dist=True)
    layout.commit(writing, layout.step_folder(run / "checkpoints", 3))
    (run / "config.json").write_text(dump_config(RunConfig(model=ModelConfig(path=str(base), dtype="float32"), rope=rope)))
    return run


def test_export_carries_the_rope(tmp_path):
    """What transformers loads from the export is the trainer's model, at positions that the base does not have."""
    base, run, rope = write(tmp_path / "base"), tmp_path / "run", RopeConfig(factor=2, original_positions=64, attention_factor=1.1)
    trained = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    exported = AutoModelForCausalLM.from_pretrained(export(finished(run, base, trained, rope), None, None))
    assert exported.config.max_position_embeddings == 128
    assert resolve_rope(run / "export" / "step-000003") == resolve_rope(base, rope)
    yarn = PLAIN | {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "attention_factor": 1.1}
    expected = Qwen3ForCausalLM(Qwen3Config(**SIZES, rope_parameters=yarn)).eval()
    expected.load_state_dict(trained.state_dict())
    tokens = torch.arange(2, 96).repeat(2)[None, :120]
    with torch.no_grad():
        torch.testing.assert_close(exported(tokens).logits, expected(tokens).logits)
        assert (exported(tokens).logits - trained(tokens).logits).abs().max() > 1e-2


def test_export_keeps_the_checkpoints_own_dropout(tmp_path):
    """It is off in training, and whoever fine-tunes the export may want it."""
    base = write(tmp_path / "base", attention_dropout=0.125)
    assert build_model(base).config.attention_dropout == 0
    folder = export(finished(tmp_path / "run", base, AutoModelForCausalLM.from_pretrained(base), RopeConfig()), None, None)
    assert json.loads((folder / "config.json").read_text())["attention_dropout"] == 0.125


def test_yarn_on_an_export_begins_where_the_checkpoint_ended(tmp_path):
    """Not at the positions that training without scaling reached: what comes of editing `max_position_embeddings` by hand."""
    base = write(tmp_path / "base")
    run = finished(tmp_path / "run", base, AutoModelForCausalLM.from_pretrained(base), RopeConfig(max_positions=512))
    folder = export(run, None, None)
    assert resolve_rope(folder).max_positions == 512
    settings = RopeConfig(factor=1.5, max_positions=600)
    assert resolve_rope(folder, settings) == resolve_rope(base, settings)
