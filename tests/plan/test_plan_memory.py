"""Bytes of a plan, by hand and beside what one H200 measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.plan.shapes import shape, write
from polaris.config.lora import LoraConfig
from polaris.config.schema import RunConfig
from polaris.config.training import OptimizerConfig
from polaris.model.adapters import add_adapters
from polaris.model.load import build_model
from polaris.plan.advice import what_does_not_fit
from polaris.plan.cards import GIB, card_named
from polaris.plan.memory import RESERVE, disk_of, engine_of, host_of, state_of, update_of
from polaris.plan.setup import Setup, Stage, adapters_of, setup_of
from polaris.plan.shape import ModelShape

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
TINY = ModelShape(
    hidden=8,
    inner=16,
    layers=2,
    query=8,
    key=4,
    heads=4,
    vocabulary=100,
    layer=1000,
    outside=808,
    tied=True,
    query_norm=False,
    fusible=True,
    linear=(("q_proj", 16), ("k_proj", 12), ("up_proj", 24)),
)
"""2,808 parameters."""


def tiny(**changes):
    stages = (Stage(steps=1, response=50),)
    return replace(Setup(shape=TINY, card=card_named("H100"), gpus=4, tokens_per_pack=60, prompt=10, stages=stages), **changes)


@pytest.mark.parametrize("row", json.loads((RESULTS / "step_nvidia-h200_2026-11-28.json").read_text())["rows"], ids=lambda row: row["case"])
def test_the_peak_that_an_h200_measured_is_planned(row):
    """Qwen3-4B, one update of one pack, layers recomputed, Liger's modules: 63.3, 65.1 and 69.6 GiB."""
    tokens = row["parameters"]["tokens"]
    stages = (Stage(steps=1, response=tokens),)
    card = card_named("H200")
    setup = Setup(shape=shape("Qwen3-4B"), card=card, gpus=1, tokens_per_pack=tokens, prompt=0, stages=stages, one_pack=True, engine="none")
    planned = (sum(update_of(setup).values()) - RESERVE) / GIB
    print(f"{tokens}: planned {planned:.1f}, measured {row['facts']['peak GiB']:.1f} GiB")
    assert planned == pytest.approx(row["facts"]["peak GiB"], rel=0.03)


def test_state_by_hand():
    assert sum(state_of(tiny(), gradients=True).values()) == 16 * 2808 / 4
    assert sum(state_of(tiny(), gradients=False).values()) == 12 * 2808 / 4
    assert sum(state_of(tiny(nodes=2, replicas=2), gradients=False).values()) == 12 * 2808 / 4
    # Between its packs each copy has partly reduced gradients, which become the gradients after the last one.
    assert sum(state_of(tiny(nodes=2, replicas=2), gradients=True).values()) == 16 * 2808 / 4
    assert sum(state_of(tiny(optimizer="host"), gradients=True).values()) == 0
    assert sum(state_of(tiny(nodes=2, replicas=2, optimizer="host"), gradients=True).values()) == 4 * 2808 / 4
    # Ranks that only sample hold nothing of it.
    assert sum(state_of(tiny(engine="separate", engine_ranks=2), gradients=False).values()) == 12 * 2808 / 2


def test_moments_of_8_bits_are_a_byte_and_a_256th_of_their_scale_each():
    rounded = tiny(optimizer="8bit", staged=True)
    assert state_of(rounded, gradients=True) == {"weights": 4 * 702, "moments": 2.03125 * 702, "gradients": 4 * 702}
    assert host_of(rounded)["copy for checkpoints"] == 6.03125 * 2808
    assert disk_of(rounded) == 12 * 2808
    plain = setup_of(RunConfig(), TINY, card_named("H100"), 8)
    assert setup_of(RunConfig(optimizer=OptimizerConfig(name="adamw8bit")), TINY, card_named("H100"), 8) == replace(plain, optimizer="8bit")


def test_adapters_leave_the_model_in_half_precision():
    count = adapters_of(TINY, LoraConfig(rank=2))
    assert count == 2 * 2 * (16 + 12 + 24)
    assert adapters_of(TINY, LoraConfig(rank=2, targets=("q_proj", "up_proj"))) == 2 * 2 * (16 + 24)
    found = state_of(tiny(adapters=count), gradients=True)
    assert sum(found.values()) == (16 * count + 2 * 2808) / 4
    assert disk_of(tiny(adapters=count)) == 12 * count
    assert disk_of(tiny()) == 12 * 2808


def test_adapters_are_counted_as_peft_makes_them(tmp_path):
    model = build_model(write("Qwen3-0.6B", tmp_path))
    before = sum(parameter.numel() for parameter in model.parameters())
    add_adapters(model, LoraConfig(rank=16), torch.bfloat16)
    assert adapters_of(shape("Qwen3-0.6B"), LoraConfig(rank=16)) == sum(parameter.numel() for parameter in model.parameters()) - before


def test_each_rung_takes_less_of_the_device():
    big = Setup(shape=shape("Qwen3-4B"), card=card_named("H100"), gpus=8, tokens_per_pack=65_536)
    peaks = [sum(update_of(replace(big, activations=kind)).values()) for kind in ("keep", "recompute_mlp", "recompute", "offload")]
    assert peaks == sorted(peaks, reverse=True)
    # 36 layers of 65,536 tokens: 29,184 numbers of gate, up and product each; then all but the inputs; of these three layers stay.
    assert peaks[2] - peaks[3] == pytest.approx(33 * 65_536 * 2560 * 2)
    assert peaks[0] - peaks[1] == pytest.approx(35 * 65_536 * 3 * 9728 * 2, rel=0.02)
    assert sum(update_of(replace(big, optimizer="host")).values()) < peaks[2] - 12 * big.shape.parameters / 8


def test_neighbours_share_a_sequence():
    long = tiny(stages=(Stage(steps=1, response=990),))
    assert long.pack == 1000
    assert replace(long, sequence_parallel=4).pack == 250
    assert replace(long, sequence_parallel=4, tokens_per_pack=400).pack == 400


def test_the_cache_of_an_engine_by_hand():
    """Two layers, keys and values of 4 numbers in two bytes: 32 bytes a token, half of it on each of two GPUs."""
    engine = engine_of(tiny())
    assert engine.per_token == 32
    assert engine.tokens == pytest.approx((0.8 * 79.1 * GIB - 2 * 2808 - engine.working) / 32, rel=1e-6)
    assert engine.sequences(1000) == engine.tokens / 1000
    assert engine_of(tiny(tensor_parallel=2)).per_token == 16
    # Of its one key-value head, which vLLM repeats, each of four GPUs has all two numbers.
    assert engine_of(tiny(tensor_parallel=4)).per_token == 2 * 2 * 2 * max(TINY.key / 4, TINY.query / TINY.heads)
    assert engine_of(tiny(engine="none")) is None


def test_host_memory_by_hand():
    plain = host_of(tiny())
    more = host_of(tiny(optimizer="host", activations="offload", reference=True))
    assert {name: more[name] - plain.get(name, 0) for name in more if more[name] != plain.get(name, 0)} == {
        "weights, gradients, moments": 1.2 * 16 * 2808,
        "activations": 4 * 2 * 1024,  # 960 bytes for each of two layers, in blocks of pinned memory
        "reference": 2 * 2808,
    }
    # Of two nodes without copies each holds a half.
    assert host_of(tiny(nodes=2, optimizer="host"))["weights, gradients, moments"] == 1.2 * 16 * 2808 / 2
    # Beside adapters, engines keep the model while they sleep; and the policy without them is the reference.
    assert host_of(tiny(adapters=104, served_apart=True))["engine asleep"] == 4 * 2 * 2808
    assert "reference" not in host_of(tiny(adapters=104, reference=True))
    assert host_of(tiny(staged=True))["copy for checkpoints"] == 12 * 2808
    assert what_does_not_fit(tiny(staged=True, host_gib=20 * 2808 / GIB)) == what_does_not_fit(tiny(host_gib=20 * 2808 / GIB))
