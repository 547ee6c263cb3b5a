"""The temperature probe on the embedded model: its zones, its retuning, its resumption, and a step of training at what it found."""

import re
import time
from dataclasses import replace
from pathlib import Path

import programs
import pytest
import torch
from scripted import for_training

from polaris.algorithm.track import cooler, hotter
from polaris.config.load import load_config
from polaris.config.recipe import StageConfig
from polaris.distributed.mesh import World
from polaris.model.load import build_model, load_weights
from polaris.observe.console import Console
from polaris.recipe.plan import plan_stages
from polaris.recipe.stage_temperature import stage_temperature
from polaris.recipe.temperature import TemperatureProbe, probe_temperature, retune
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted
from polaris.run.checks import check
from polaris.run.setup import open_sampling
from polaris.stop import StopRequest

# The first use on a new machine builds the embedded model.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CONFIG = """
deterministic = true
model = { path = "embedded:model", dtype = "float32" }
memory = { activations = "keep" }
data = { path = "embedded:train", max_prompt_tokens = 64 }
rollout = { engine = "transformers", max_response_tokens = 192, kv_cache_mib = 64 }
reward = { workers = 1 }
optimizer = { lr = 1e-4 }
trainer = { prompts_per_step = 8, cpu_threads = 1 }
eval = { path = "embedded:test" }
probe = { prompts = 40, samples_per_prompt = 4 }
"""


class StopsAfter(StopRequest):
    """A stop that is requested when so many results are on disk."""

    def __init__(self):
        super().__init__()
        self.path, self.readings = None, 0

    def requested(self):
        return self.path is not None and self.path.exists() and len(Result(self.path).read()["readings"]) >= self.readings


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "probe.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def checked(config_file):
    return check(load_config(config_file, []))


@pytest.fixture(scope="module")
def sampling(checked):
    world = World(rank=0, size=1, device=torch.device("cpu"), mesh=None)
    with open_sampling(checked, world, StopsAfter(), Console(True, 0)) as context:
        yield context


@pytest.fixture(scope="module")
def weights(checked):
    model = build_model(checked.model.folder)
    load_weights(model, checked.model.folder, torch.device("cpu"))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.fixture
def context(sampling, weights):
    """The engine serves the base model as version 0; nothing stops it."""
    sampling.engine.load_weights(weights.items(), 0)
    sampling.stop.path = None
    return sampling


def sharpen(context, weights, factor):
    """Logits times `factor`: what training does to the embedded model, in a form whose right answer is known."""
    context.engine.load_weights([(name, w * factor if name == "model.norm.weight" else w) for name, w in weights.items()], 1)


def probe_of(context, checked, path):
    return TemperatureProbe(context, checked.held_out.prompts, 192, path)


def with_probe(context, **changes):
    return replace(context, config=replace(context.config, probe=replace(context.config.probe, **changes)))


def test_retuning_finds_the_temperature_that_undoes_a_sharpening(context, checked, weights, tmp_path):
    """Logits x 1.37 at temperature 0.55 are the base model's at 0.4014: diversity is that of 0.4 from 0.55 on."""
    before = probe_of(context, checked, tmp_path / "before.json").at(0.4)
    sharpen(context, weights, 1.37)
    result = retune(probe_of(context, checked, tmp_path / "after.json"), 0.4, before.tokens)
    assert result["temperature"] == pytest.approx(0.55, abs=0.051)
    assert result["stopped"] == "diversity restored"
    tokens = {reading["temperature"]: reading["tokens"] for reading in result["readings"]}
    assert result["diversity"] >= before.tokens > tokens[cooler(result["temperature"])]
    assert list(tokens) == sorted(tokens)
    assert list(tokens)[:3] == [0.4, 0.45, 0.5]
    assert Result(tmp_path / "after.json").read() == result


def test_retuning_never_goes_into_collapse(context, checked, tmp_path):
    result = retune(probe_of(context, checked, tmp_path / "after.json"), 0.4, target=1.01)
    accuracy = {reading["temperature"]: reading["accuracy"] for reading in result["readings"]}
    assert result["stopped"] == "accuracy collapses"
    assert accuracy[hotter(result["temperature"])] < 0.75 * max(accuracy.values())
    assert accuracy[result["temperature"]] > 0.65 * max(accuracy.values())


def test_retuning_stays_within_the_grid_and_where_accuracy_says_nothing(context, checked, tmp_path):
    cool = with_probe(context, temperatures=(0.2, 0.3, 0.44))
    result = retune(probe_of(cool, checked, tmp_path / "grid.json"), 0.35, target=1.01)
    assert (result["temperature"], result["stopped"]) == (0.4, "probe.temperatures end")
    result = retune(probe_of(context, checked, tmp_path / "hot.json"), 5.0, target=1.01)
    assert (result["temperature"], result["stopped"]) == (5.0, "accuracy cannot be told from 0")
    assert len(result["readings"]) == 1


@pytest.mark.parametrize(("temperature", "next_one"), [(1.4, 1.45), (0.7, 0.75), (0.72, 0.75), (0.15, 0.2), (1.0, 1.05), (1.149, 1.15)])
def test_the_next_temperature_is_on_the_grid(temperature, next_one):
    assert hotter(temperature) == next_one


def test_a_stopped_probe_goes_on_after_its_last_reading(context, checked, tmp_path):
    grid = with_probe(context, temperatures=(0.2, 0.6, 1.4), samples_per_prompt=2)
    straight = probe_temperature(probe_of(grid, checked, tmp_path / "straight.json"))
    grid.stop.path, grid.stop.readings = tmp_path / "unfinished-stopped.json", 2
    with pytest.raises(GenerationInterrupted):
        probe_temperature(probe_of(grid, checked, tmp_path / "stopped.json"))
    kept = Result(grid.stop.path).read()
    assert [reading["temperature"] for reading in kept["readings"]] == [0.2, 0.6]
    grid.stop.path = None
    # A number that no draw could give shows that the reading is not drawn again.
    kept["readings"][0]["length_mean"] = 12345.0
    Result(tmp_path / "unfinished-stopped.json").write(kept)
    resumed = probe_temperature(probe_of(grid, checked, tmp_path / "stopped.json"))
    assert resumed["readings"][0].pop("length_mean") == 12345.0
    straight["readings"][0].pop("length_mean")
    assert resumed == straight
    assert {path.name for path in tmp_path.iterdir()} == {"straight.json", "straight.png", "stopped.json", "stopped.png"}


def test_readings_of_other_weights_are_not_taken(context, checked, weights, tmp_path):
    first = probe_of(context, checked, tmp_path / "result.json").at(0.6)
    sharpen(context, weights, 3.0)
    second = probe_of(context, checked, tmp_path / "result.json").at(0.6)
    assert second.tokens < first.tokens


def test_a_result_is_read_and_one_with_other_settings_refused(context, checked, weights, tmp_path):
    grid = with_probe(context, temperatures=(0.2, 0.6, 1.4))
    result = probe_temperature(probe_of(grid, checked, tmp_path / "result.json"))
    context.engine.load_weights(weights.items(), 7)  # a resumed stage serves later weights
    assert probe_temperature(probe_of(grid, checked, tmp_path / "result.json")) == result
    with pytest.raises(ValueError, match=r"temperatures: \[0\.2, 0\.6, 1\.4\] -> \[0\.2, 0\.6, 1\.6\]"):
        probe_temperature(probe_of(with_probe(context, temperatures=(0.2, 0.6, 1.6)), checked, tmp_path / "result.json"))


def test_words_that_are_not_there_are_an_error_with_the_remedy(context, checked, tmp_path):
    with pytest.raises(ValueError, match=r'set probe\.diversity = "tokens"'):
        probe_of(with_probe(context, diversity="words"), checked, tmp_path / "result.json").at(0.6)


def stage_context(context, checked, stages, **changes):
    config = replace(with_probe(context, temperatures=(0.2, 0.4, 0.6)).config, stage=stages)
    prompts = {"prompts": checked.prompts.prompts, "held_out": checked.held_out.prompts} | changes
    return for_training(replace(context, config=config), **prompts)


def test_stages_begin_at_their_number_their_probe_or_the_restored_diversity(context, checked, weights, tmp_path):
    stages = (
        StageConfig(temperature=0.4),
        StageConfig(temperature="probe", max_response_tokens=100),
        StageConfig(),
        StageConfig(temperature=0.9),
    )
    training = stage_context(context, checked, stages)
    plan = plan_stages(training.config)
    assert stage_temperature(training, plan[0], tmp_path, begun=False) == 0.4
    sharpen(context, weights, 1.1)
    retuned = stage_temperature(training, plan[1], tmp_path, begun=False)
    assert retuned in (0.45, 0.5)
    first, second = (Result(tmp_path / f"temperature-{number}.json").read() for number in (1, 2))
    assert (first["source"], second["source"], second["target"]) == ("fixed", "retune", first["diversity"])
    assert (first["settings"]["max_response_tokens"], second["settings"]["max_response_tokens"]) == (192, 192)
    assert stage_temperature(training, plan[2], tmp_path, begun=False) == context.config.rollout.temperature
    assert stage_temperature(training, plan[3], tmp_path, begun=False) == 0.9
    assert not (tmp_path / "temperature-3.json").exists()
    sharpen(context, weights, 3.0)
    assert stage_temperature(training, plan[1], tmp_path, begun=False) == retuned  # read, not measured
    other = stage_context(context, checked, (StageConfig(temperature=0.5), *stages[1:]))
    with pytest.raises(ValueError, match=r"temperature: 0\.4 -> 0\.5"):
        stage_temperature(other, plan_stages(other.config)[0], tmp_path, begun=False)


def test_a_stage_that_has_begun_is_not_measured(context, checked, tmp_path):
    training = stage_context(context, checked, (StageConfig(temperature=0.4), StageConfig(temperature="probe")))
    first, second = plan_stages(training.config)
    assert stage_temperature(training, first, tmp_path, begun=True) == 0.4  # its start would be needed for the second, but is over
    with pytest.raises(ValueError, match=r"temperature-2\.json is gone"):
        stage_temperature(training, second, tmp_path, begun=True)
    assert not list(tmp_path.iterdir())


def test_the_first_stage_has_the_whole_probe_on_training_prompts_where_nothing_is_held_out(context, checked, tmp_path):
    training = stage_context(context, checked, (StageConfig(temperature="probe"),), held_out=())
    found = stage_temperature(training, plan_stages(training.config)[0], tmp_path, begun=False)
    result = Result(tmp_path / "temperature-1.json").read()
    assert (result["source"], result["temperature"]) == ("probe", found)
    assert [reading["temperature"] for reading in result["readings"]] == [0.2, 0.4, 0.6]
    assert len(result["readings"][0]["per_prompt"]) == 40
    assert (tmp_path / "temperature-1.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_command_draws_only_what_it_had_not_finished(config_file, tmp_path):
    def command(root):
        overrides = [f"--root={root}", "--name=probed", "--probe.temperatures=[0.2, 0.4, 0.6, 0.8, 1.2]", "--probe.prompts=16"]
        return ["-m", "polaris.cli", "temperature", config_file, *overrides]

    whole = programs.run(*command(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "robust generation  <- chosen" in whole.stdout
    unfinished = tmp_path / "killed" / "probed" / "stages" / "unfinished-temperature-probe.json"
    process = programs.Program(*command(tmp_path / "killed"))
    deadline = time.monotonic() + 200
    while not unfinished.exists() or len(Result(unfinished).read()["readings"]) < 2:
        assert process.poll() is None, "the probe ended early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    draws = sum(reading["samples"] // 2 for reading in Result(unfinished).read()["readings"])  # rounds of two, up to four
    again = programs.run(*command(tmp_path / "killed"))
    assert again.returncode == 0, again.stderr
    straight, drawn = (re.findall(r"^temperature [\d.]+:.*", said.stdout, re.MULTILINE) for said in (whole, again))
    assert drawn == straight[draws:]
    results = [Path(tmp_path / name / "probed" / "stages" / "temperature-probe.json").read_text() for name in ("whole", "killed")]
    assert results[0] == results[1]


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_a_step_at_a_retuned_temperature_has_one_temperature_on_both_sides(config_file, engine, tmp_path):
    # A process of its own: engines of other tests hold this one's process group.
    ended = programs.run(Path(__file__).with_name("gap_of_a_step.py"), config_file, tmp_path, engine, "1.35", check=True)
    assert float(ended.stdout.rpartition("gap ")[2]) < 1e-4
