"""The configurations that ship for so many cards fit them; so do the recipes on the machines that they name."""

import re
from pathlib import Path

import pytest

from benchmarks.plan.shapes import CONFIGS, shape
from polaris.config.load import load_config
from polaris.plan.advice import faults_of
from polaris.plan.cards import card_named
from polaris.plan.memory import memory_of
from polaris.plan.setup import setup_of

ROOT = Path(__file__).resolve().parents[2] / "configs"
READY = sorted((ROOT / "cards").glob("*.toml"))
COMMAND = re.compile(r'`polaris plan (\S+) --gpus (\d+)(?: --nodes (\d+))? --gpu "([^"]+)"`')


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_configuration_fits_the_cards_that_it_names(path):
    named, gpus, nodes, card = COMMAND.search(path.read_text()).groups()
    config = load_config(path)
    setup = setup_of(config, shape(config.model.path.removeprefix("Qwen/")), card_named(card), int(gpus), int(nodes or 1))
    assert named == f"configs/cards/{path.name}"
    assert path.stem == config.name == f"{setup.gpus * setup.nodes}x-{config.model.path.removeprefix('Qwen/').lower()}"
    memory = memory_of(setup)
    assert faults_of(setup, memory) == []
    assert memory.engine.sequences(setup.longest) > 2
    # Not by a wide margin: a card that is half empty has a faster setting.
    assert memory.peak > 0.6 * setup.card.gib * 2**30


def test_there_is_one_for_each_count_of_cards_and_each_size():
    counts, models = zip(*(path.stem.split("x-", 1) for path in READY), strict=True)
    assert {int(count) for count in counts} == {1, 2, 4, 8, 16, 32}
    assert set(models) == {name.lower() for name in CONFIGS if name.startswith("Qwen3")}


@pytest.mark.parametrize(("name", "nodes"), [("qwen3-1.7b", 1), ("qwen3-4b", 1), ("qwen3-4b", 4)])
def test_the_recipes_fit_the_machines_of_their_comments(name, nodes):
    config = load_config(ROOT / f"{name}.toml")
    setup = setup_of(config, shape(config.model.path.removeprefix("Qwen/")), card_named("H100"), 8, nodes)
    assert faults_of(setup, memory_of(setup)) == []
