"""What does not fit is refused, and what the message advises fits."""

import re
from dataclasses import replace

import pytest

from benchmarks.plan.shapes import shape
from polaris.errors import Refused
from polaris.plan.advice import best_on_more, best_rungs, changed, enough_gpus, faster, fits, refuse_what_does_not_fit
from polaris.plan.cards import CARDS, card_named, card_of_device
from polaris.plan.memory import memory_of
from polaris.plan.setup import Setup, Stage
from polaris.plan.speed import step_time


def run(model, gpus=8, nodes=1, response=32_768, card="H100", **changes):
    stages = (Stage(steps=1, response=response),)
    return replace(Setup(shape=shape(model), card=card_named(card), gpus=gpus, nodes=nodes, stages=stages), **changes)


@pytest.mark.parametrize(
    ("setup", "phase", "rung"),
    [
        (run("Qwen3-4B", gpus=1), "sampling", 'memory.optimizer = "host"'),
        (run("Qwen3-4B", gpus=2, optimizer="device", fraction=0.9, response=8192), "sampling", "rollout.gpu_memory_fraction"),
        (run("Qwen3-8B", gpus=4, response=8192), "sampling", 'optimizer.name = "adamw8bit"'),
        (run("Qwen3-4B", gpus=1, optimizer="8bit"), "sampling", 'set optimizer.name = "adamw" and memory.optimizer = "host"'),
        (run("Qwen3-32B"), "an update", "rollout.tensor_parallel"),
        (run("Qwen3-4B", activations="keep", response=65_536), "an update", "memory.activations = "),
        (run("Qwen3-8B", card="L40S", response=262_144, optimizer="host"), "an update", "distributed.sequence_parallel"),
        (run("Qwen3-8B", tokens_per_pack=262_144), "an update", "trainer.tokens_per_pack"),
    ],
    ids=["host", "share", "8bit", "host instead", "engine", "recompute", "sequence", "pack"],
)
def test_the_rung_that_is_named_makes_it_fit(setup, phase, rung):
    with pytest.raises(Refused, match=phase) as refused:
        refuse_what_does_not_fit(setup)
    found = best_rungs(setup)
    print(refused.value)
    assert fits(found)
    named = changed(setup, found)
    assert all(setting in str(refused.value) for setting in named)
    assert rung in str(refused.value)
    # None of its changes is idle.
    assert all(not fits(replace(found, **{name: getattr(setup, name)})) for name in _differing(setup, found))


def _differing(before, after):
    names = ("activations", "optimizer", "sequence_parallel", "tokens_per_pack", "fraction", "tensor_parallel")
    return [name for name in names if getattr(before, name) != getattr(after, name)]


@pytest.mark.parametrize(
    ("setup", "named"),
    [
        (run("Qwen3-1.7B", response=8192), ['memory.activations = "keep"']),
        (run("Qwen3-1.7B", response=8192, activations="offload", optimizer="8bit"), ['memory.activations = "keep"']),
        (run("Qwen3-4B", optimizer="host", activations="offload"), ['memory.activations = "recompute_mlp"']),
        (run("Qwen3-4B", gpus=2, optimizer="host", fraction=0.5, prompts=16, response=1024), ['memory.optimizer = "device"']),
        (run("Qwen3-0.6B", tensor_parallel=4, response=8192, activations="keep"), ["rollout.tensor_parallel = 1"]),
    ],
)
def test_a_setting_with_room_is_told_what_is_faster_and_fits(setup, named):
    found = faster(setup)
    assert changed(setup, found) == named
    assert fits(replace(found, card=replace(found.card, gib=0.9 * found.card.gib)))
    now, then = (step_time(one, one.stages[-1]).seconds for one in (setup, found))
    assert then < 0.985 * now
    assert faster(found) is None


def test_what_fits_barely_or_spares_little_is_not_advised():
    setup = run("Qwen3-4B", optimizer="host")
    found = faster(setup)
    barely = replace(setup, card=replace(setup.card, gib=memory_of(found).peak / 2**30 + 0.1))
    assert fits(replace(found, card=barely.card))
    assert faster(barely) != replace(found, card=barely.card)
    assert faster(replace(found, optimizer="host")) is None


def test_a_pack_is_not_made_smaller_than_helps():
    """Packs of 16,384 tokens and of 8,192 are both those of the longest sequence."""
    found = best_rungs(run("Qwen3-4B", gpus=1, adapters=33_030_144, activations="keep", response=16_384))
    assert changed(run("Qwen3-4B", activations="keep"), found) == ["trainer.tokens_per_pack = 16384"]


def test_gpus_that_are_named_are_enough_and_half_of_them_are_not():
    setup = run("Qwen3-14B", gpus=2)
    with pytest.raises(Refused, match="start") as refused:
        refuse_what_does_not_fit(setup)
    count = int(re.search(r"start (\d+) GPUs", str(refused.value))[1])
    assert count == enough_gpus(setup)
    assert fits(replace(setup, gpus=8, nodes=count // 8))
    half = count // 2
    assert not fits(replace(setup, gpus=min(8, half), nodes=max(1, half // 8)))


def test_the_limit_is_exact():
    setup = run("Qwen3-4B", engine="none")
    peak = memory_of(setup).peak
    exact = replace(setup.card, gib=peak / 2**30)
    refuse_what_does_not_fit(replace(setup, card=exact))
    with pytest.raises(Refused):
        refuse_what_does_not_fit(replace(setup, card=replace(exact, gib=exact.gib - 0.001)))


def test_host_memory_counts_where_it_is_known():
    setup = run("Qwen3-14B", gpus=1, optimizer="host", response=8192)
    refuse_what_does_not_fit(setup)
    with pytest.raises(Refused, match=r"in a node's host memory, training of 14\.8B parameters.*weights, gradients, moments 264"):
        refuse_what_does_not_fit(replace(setup, host_gib=200.0))


def test_a_model_too_large_for_the_gpus_by_any_rung_is_told_how_many_and_which():
    """Engines of one GPU hold no 32B on any number of them."""
    setup = run("Qwen3-32B", gpus=1, response=8192)
    with pytest.raises(Refused, match="start") as refused:
        refuse_what_does_not_fit(setup)
    found = best_on_more(setup)
    assert fits(found)
    assert best_rungs(replace(setup, gpus=found.gpus // 2)) is None
    assert f"start {found.gpus} GPUs or more with {' and '.join(changed(setup, found))}" in str(refused.value)
    assert "rollout.tensor_parallel = " in str(refused.value)


def test_what_nothing_helps_is_told_so():
    with pytest.raises(Refused, match="take a smaller model, shorter responses, more GPUs or larger ones"):
        refuse_what_does_not_fit(run("Qwen3-32B", card="RTX 4090", response=8_000_000, adapters=1))


def test_cards_are_found_by_their_names():
    assert card_named("h100") is card_named("H100 80GB")
    assert card_named("H20").gib < card_named("h200").gib
    assert card_named("RTX4090") is card_named("rtx 4090 24gb")
    with pytest.raises(Refused, match="several cards; there are A100 80GB, A100 40GB"):
        card_named("a100")
    with pytest.raises(Refused, match="did you mean 'L40S 48GB'"):
        card_named("L40 48GB")
    assert len({card.name for card in CARDS}) == len(CARDS)


def test_a_device_has_its_own_memory_and_its_cards_rates():
    found = card_of_device("NVIDIA A100-SXM4-40GB", 39 * 2**30)
    assert (found.gib, found.hbm) == (39, 1555)
    unknown = card_of_device("Some GPU", 12 * 2**30)
    assert (unknown.gib, unknown.hbm) == (12, card_named("H100").hbm)


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence_parallel": 16, "tokens_per_pack": 4_000_000},
        {"tensor_parallel": 16, "tokens_per_pack": 4_000_000},
        {"engine": "separate", "engine_ranks": 3, "tensor_parallel": 3, "tokens_per_pack": 4_000_000},
    ],
    ids=["shared over nodes", "an engine over nodes", "three"],
)
def test_settings_that_are_no_powers_or_cross_nodes_are_advised_too(changes):
    with pytest.raises(Refused, match=r"an update .*; (set|start|take|train)"):
        refuse_what_does_not_fit(run("Qwen3-4B", nodes=2, **changes))


def test_what_is_advised_can_be_started():
    """Ranks that share packs are of one copy of the state: two of 16 ranks with eight copies."""
    setup = run("Qwen3-8B", card="L40S", nodes=2, response=262_144, optimizer="host", replicas=8)
    found = best_rungs(setup)
    assert found is None or setup.shards % found.sequence_parallel == 0
