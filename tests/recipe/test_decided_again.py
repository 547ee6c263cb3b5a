"""What a temperature probe has read stays where only the choice changes; scripted engines, whose hotter responses are more diverse."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from scripted import for_training, on_ranks, prompts_named

from polaris.checkpoint.run_folder import RunFolder
from polaris.commands import temperature as command
from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.recipe import ProbeConfig, StageConfig
from polaris.config.schema import RunConfig
from polaris.recipe import temperature
from polaris.recipe.plan import plan_stages
from polaris.recipe.stage_temperature import stage_temperature
from polaris.recipe.temperature import TemperatureProbe, probe_temperature, read_once, retune
from polaris.recipe.temperature_table import table
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted

HELD_OUT = prompts_named(f"p{index}" for index in range(30))
GRID = ProbeConfig(temperatures=(0.4, 0.8, 1.2), samples_per_prompt=2, prompts=24, diversity="words")
FINER = replace(GRID, temperatures=(0.4, 0.6, 0.8, 1.2))


class Measure:
    """`temperature.measure`, with a record of what was drawn; a stop is requested at the temperature `stops_at`, after so many draws."""

    def __init__(self, measure):
        self._measure, self._drawn, self.stops_at, self.stops_after = measure, [], None, 0

    def __call__(self, context, prompts, sampling, first, samples):
        if sampling.temperature == self.stops_at and len(self._drawn) >= self.stops_after:
            raise GenerationInterrupted
        self._drawn.append(sampling.temperature)
        return self._measure(context, prompts, sampling, first, samples)

    def drawn(self):
        """What was drawn since the last call."""
        drawn, self._drawn = self._drawn, []
        return drawn


@pytest.fixture
def measure(monkeypatch):
    recording = Measure(temperature.measure)
    monkeypatch.setattr(temperature, "measure", recording)
    return recording


WITHOUT_SPACES = SimpleNamespace(decode=lambda tokens, **_: "".join(chr(0x4E00 + token) for token in tokens))


def on_one_rank(config, version, work, tokenizer=None):
    def served(context):
        context.engine.version = version
        return work(replace(context, tokenizer=tokenizer or context.tokenizer))

    (result,), _ = on_ranks(config, served)
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture
def probe(tmp_path):
    """The probe of a stage; with weights of a version."""

    def once(settings=GRID, name="result", *, choose=probe_temperature, version=0, tokenizer=None, **config):
        held_in = RunConfig(root=str(tmp_path), probe=settings, **config)

        def work(context):
            return choose(TemperatureProbe(context, HELD_OUT, 64, tmp_path / f"{name}.json"))

        return on_one_rank(held_in, version, work, tokenizer)

    return once


@pytest.mark.parametrize(("most", "count"), [(24, 24), ("all", 30)])
def test_the_probe_reads_the_first_prompts_or_all(most, count):
    assert temperature.prompts_of(RunConfig(probe=replace(GRID, prompts=most)), HELD_OUT) == HELD_OUT[:count]


@pytest.mark.parametrize("change", [{"tolerance": 0.2}, {"diversity": "tokens"}, {"temperatures": (0.2, 0.4, 0.8)}])
def test_readings_of_a_stopped_probe_stay_when_the_choice_changes(probe, measure, change):
    measure.stops_at = 1.2
    with pytest.raises(GenerationInterrupted):
        probe()
    assert measure.drawn() == [0.4, 0.8]
    measure.stops_at = None
    changed = replace(GRID, **change)
    resumed = probe(changed)
    assert measure.drawn() == [at for at in changed.temperatures if at not in (0.4, 0.8)]
    assert resumed == probe(changed, "straight")


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ({"prompts": 23}, {}),
        ({}, {"seed": 1}),
        ({}, {"rope": RopeConfig(factor=2.0)}),
        ({}, {"model": ModelConfig(dtype="float32")}),
        ({}, {"version": 1}),
    ],
)
def test_readings_measured_otherwise_are_not_taken(probe, measure, change, config):
    measure.stops_at = 1.2
    with pytest.raises(GenerationInterrupted):
        probe()
    measure.stops_at = None
    measure.drawn()
    probe(replace(GRID, **change), **config)
    assert measure.drawn() == [0.4, 0.8, 1.2]


@pytest.mark.parametrize("change", [{"tolerance": 0.2}, {"diversity": "tokens"}, {"temperatures": (0.4, 0.6, 0.8, 1.2)}])
def test_a_finished_probe_is_decided_again_from_its_readings(probe, measure, tmp_path, change):
    probe()
    measure.drawn()
    changed = replace(GRID, **change)
    result = probe(changed)
    assert measure.drawn() == [at for at in changed.temperatures if at not in GRID.temperatures]
    assert result == Result(tmp_path / "result.json").read() == probe(changed, "straight")
    assert result["version"] == 0
    assert sorted(path.name for path in tmp_path.glob("*result*")) == ["result.json", "result.png"]
    measure.drawn()
    assert probe(changed, version=7) == result, "what is decided in this way is read, whatever is served"
    assert measure.drawn() == []


def test_a_stop_before_the_new_decision_loses_neither_old_nor_new_readings(probe, measure, tmp_path):
    before = probe()
    measure.drawn()
    measure.stops_at = 1.6
    wider = replace(GRID, temperatures=(0.4, 0.6, 0.8, 1.2, 1.6))
    with pytest.raises(GenerationInterrupted):
        probe(wider)
    assert measure.drawn() == [0.6]
    assert Result(tmp_path / "result.json").read() == before
    measure.stops_at = None
    probe(wider)
    assert measure.drawn() == [1.6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, r"temperatures: \[0\.4, 0\.8, 1\.2\] -> \[0\.4, 0\.6, 0\.8, 1\.2\]"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"rope": RopeConfig(factor=2.0)}, r"rope\.factor: "),
        ({"model": ModelConfig(dtype="float32")}, "dtype: 'bfloat16' -> 'float32'"),
    ],
)
def test_a_finished_probe_is_not_decided_again_for_other_weights_or_measurements(probe, measure, tmp_path, change, message):
    before = probe()
    measure.drawn()
    with pytest.raises(ValueError, match=message):
        probe(FINER, **change)
    assert measure.drawn() == []
    assert Result(tmp_path / "result.json").read() == before


AUTO = replace(GRID, diversity="auto")


@pytest.mark.parametrize(("tokenizer", "kind"), [(None, "words"), (WITHOUT_SPACES, "tokens")])
def test_the_responses_decide_whether_words_or_tokens_are_counted(probe, tokenizer, kind):
    result = probe(AUTO, tokenizer=tokenizer)
    assert result["settings"]["diversity"] == kind
    chosen = next(reading for reading in result["readings"] if reading["temperature"] == result["temperature"])
    assert result["diversity"] == chosen[kind]
    assert probe(AUTO, tokenizer=tokenizer, version=7) == result


def test_words_that_are_asked_for_and_not_there_stop_the_probe_at_its_first_temperature(probe, measure):
    with pytest.raises(ValueError, match=r'set probe\.diversity = "tokens"'):
        probe(GRID, tokenizer=WITHOUT_SPACES)
    assert measure.drawn() == [0.4]


def test_a_result_of_the_version_before_is_refused(probe, measure, tmp_path):
    """It pooled all responses for its diversity."""
    old = probe()
    del old["settings"]["compared"]
    Result(tmp_path / "result.json").write(old)
    measure.drawn()
    with pytest.raises(ValueError, match="compared: None -> 'two responses to a prompt'"):
        probe()
    assert measure.drawn() == []


ROUNDS = replace(GRID, samples_per_prompt=8, temperatures=(0.4, 0.8, 1.2, 1.6))


@pytest.mark.parametrize("after", range(4, 12))
def test_a_probe_that_is_stopped_in_a_later_round_ends_as_one_that_is_not(probe, measure, after):
    straight = probe(ROUNDS, "straight")
    order = measure.drawn()
    assert order[:4] == [0.4, 0.8, 1.2, 1.6]
    if after >= len(order):
        return
    measure.stops_at, measure.stops_after = order[after], after
    with pytest.raises(GenerationInterrupted):
        probe(ROUNDS)
    measure.stops_at = None
    assert measure.drawn() == order[:after]
    assert probe(ROUNDS) == straight
    assert measure.drawn() == order[after:]


def test_more_responses_are_added_to_those_that_are_there(probe, measure):
    """Each is the sample of its number, so a later round holds what a longer first one would."""
    probe()
    measure.drawn()
    result = probe(replace(GRID, samples_per_prompt=8))
    assert {reading["samples"] for reading in result["readings"]} <= {2, 4, 8}
    assert len(measure.drawn()) == sum({2: 0, 4: 1, 8: 2}[reading["samples"]] for reading in result["readings"]) > 0
    at_once = probe(replace(GRID, samples_per_prompt=8), "once", choose=lambda own: read_once(own, 0.8))["readings"][0]
    in_rounds = next(reading for reading in result["readings"] if reading["temperature"] == 0.8)
    assert in_rounds.keys() == at_once.keys()
    for key, value in at_once.items():
        assert in_rounds[key] == pytest.approx(value), key


def test_the_cost_is_said_before_and_after(probe, tmp_path, capsys):
    Result(tmp_path / "difficulty.json").write({"response_length_mean": 7.5, "tokens": 1500, "seconds": 3.0})
    probe(replace(GRID, samples_per_prompt=8))
    first, *_, last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("temperature probe: ")]
    assert first == (
        "temperature probe: at most 576 responses of at most 64 tokens, 36.9k tokens; 4.32k and 8.6s at the difficulty pass's 8 tokens a "
        "response and 500/s; what cannot change the choice is not drawn"
    )
    assert " responses" in last
    assert "tokens, " in last


def test_one_prompt_says_nothing_and_is_refused_before_anything_is_drawn(probe, measure, monkeypatch):
    with pytest.raises(ValueError, match=r"probe\.prompts = 1 says nothing"):
        replace(GRID, prompts=1)
    monkeypatch.setattr("test_decided_again.HELD_OUT", HELD_OUT[:1])
    with pytest.raises(ValueError, match=r"the set has one prompt"):
        probe()
    assert measure.drawn() == []


def test_what_the_prompts_cannot_tell_is_said(probe):
    said = table(probe())[-1]
    assert said.startswith("24 prompts cannot tell whether")
    assert "probe.prompts" in said


def test_a_finished_retuning_is_read(probe, measure):
    first = probe(choose=lambda own: retune(own, 0.4, 1.0))
    assert measure.drawn()
    assert probe(choose=lambda own: retune(own, 0.4, 1.0)) == first
    assert measure.drawn() == []


def test_another_way_to_a_temperature_takes_the_readings_too(probe, measure, tmp_path):
    probe()
    measure.drawn()
    assert probe(choose=lambda own: read_once(own, 0.8))["source"] == "fixed"
    assert measure.drawn() == []
    assert not (tmp_path / "result.png").exists(), "the picture of a decision that is gone"
    assert probe(choose=lambda own: retune(own, 0.8, 0.0))["stopped"] == "diversity restored"
    assert measure.drawn() == []


@pytest.fixture
def open_stage(tmp_path):
    """The temperature of a stage, counted from 0, with weights of a version."""

    def begin(index, stages, settings=GRID, *, begun=False, version=0):
        config = RunConfig(root=str(tmp_path), probe=settings, stage=stages)
        return on_one_rank(
            config,
            version,
            lambda context: stage_temperature(for_training(context, held_out=HELD_OUT), plan_stages(config)[index], tmp_path, begun),
        )

    return begin


def test_a_stage_is_decided_again_until_it_begins(open_stage, measure):
    stages = (StageConfig(temperature="probe"),)
    found = open_stage(0, stages)
    measure.drawn()
    assert open_stage(0, stages, replace(GRID, tolerance=0.0)) in GRID.temperatures
    assert measure.drawn() == []
    finer = open_stage(0, stages, FINER)
    assert measure.drawn() == [0.6]
    assert open_stage(0, stages, replace(FINER, tolerance=0.3), begun=True, version=2) == finer
    assert measure.drawn() == []
    assert open_stage(0, stages) == found


def test_the_number_of_a_stage_that_has_not_begun_may_change(open_stage, measure, tmp_path):
    first, second = StageConfig(temperature=0.4), StageConfig(temperature="probe")
    open_stage(0, (first, second))
    assert open_stage(0, (replace(first, temperature=0.5), second)) == 0.5
    assert measure.drawn() == [0.4, 0.5]
    assert Result(tmp_path / "temperature-1.json").read()["temperature"] == 0.5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"diversity": "tokens"}, "diversity: 'words' -> 'tokens'"),
        ({"prompts": 12}, "prompts: 24 -> 12"),
    ],
)
def test_diversities_that_cannot_be_compared_are_not(open_stage, tmp_path, capsys, change, why):
    stages = (StageConfig(temperature=0.4), StageConfig(temperature="probe"))
    open_stage(0, stages)
    open_stage(1, stages, replace(GRID, **change), version=9)
    assert f"stage 2 probes the whole grid: how diverse stage 1 began was measured with other settings ({why})" in capsys.readouterr().out
    result = Result(tmp_path / "temperature-2.json").read()
    assert (result["source"], [reading["temperature"] for reading in result["readings"]]) == ("probe", [0.4, 0.8, 1.2])


def test_a_measurement_at_a_temperature_that_the_stage_did_not_take_is_not_restored(open_stage, tmp_path, capsys):
    first, second = StageConfig(temperature="probe"), StageConfig(temperature="probe")
    probed = open_stage(0, (first, second))
    open_stage(1, (replace(first, temperature=probed + 0.1), second), version=9)
    assert f"(temperature: {probed!r} -> {probed + 0.1!r})" in capsys.readouterr().out
    assert Result(tmp_path / "temperature-2.json").read()["source"] == "probe"


def test_the_kind_of_diversity_that_the_stage_before_counted_is_restored(open_stage, tmp_path):
    stages = (StageConfig(temperature=0.4), StageConfig(temperature="probe"))
    open_stage(0, stages, replace(GRID, diversity="tokens"))
    open_stage(1, stages, AUTO, version=9)
    result = Result(tmp_path / "temperature-2.json").read()
    assert (result["source"], result["settings"]["diversity"]) == ("retune", "tokens")


def test_diversities_that_can_be_compared_are_restored(open_stage, tmp_path, capsys):
    stages = (StageConfig(temperature=0.4), StageConfig(temperature="probe"))
    open_stage(0, stages)
    open_stage(1, stages, replace(GRID, temperatures=(0.3, 0.5, 0.9), tolerance=0.1, samples_per_prompt=6), version=9)
    assert "probes the whole grid" not in capsys.readouterr().out
    result = Result(tmp_path / "temperature-2.json").read()
    assert (result["source"], result["version"]) == ("retune", 9)


def test_the_temperature_is_where_the_zones_say_and_its_diversity_is_told(probe):
    result = probe()
    assert result["temperature"] == result["zones"]["initial"]
    assert {reading["temperature"]: reading for reading in result["readings"]}.keys() == set(GRID.temperatures)
    assert result["source"] == "probe"


def test_the_command_prints_what_training_has_begun_with_whatever_has_changed_since(probe, measure, tmp_path, capsys):
    config = RunConfig(root=str(tmp_path), probe=FINER, stage=(StageConfig(temperature="probe"),))
    folder = RunFolder(tmp_path)
    result = probe()
    Result(plan_stages(config)[0].temperature_result(folder.stages)).write(result)
    checkpoint = folder.checkpoints / "step-000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "COMMIT.json").write_text('{"files": {}}')
    measure.drawn()
    capsys.readouterr()
    checked = SimpleNamespace(config=config, held_out=SimpleNamespace(prompts=HELD_OUT))
    command.probe((checked, folder), SimpleNamespace(size=1, is_main=True), None)
    said = capsys.readouterr().out.splitlines()
    assert said[: 1 + len(GRID.temperatures)] == table(result)[: 1 + len(GRID.temperatures)]
    assert said[-1].startswith(f"initial temperature {result['temperature']:g}; ")
    assert measure.drawn() == []
