"""The difficulty pass on scripted engines: what a stop leaves, what is drawn again, and what a finished pass is refused for."""

import re
from collections import Counter
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from scripted import for_training, on_ranks, pass_config, prompts_named

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.model import RopeConfig
from polaris.config.recipe import CurationConfig, DifficultyConfig
from polaris.config.training import TrainerConfig
from polaris.data.pass_rates import PassRates
from polaris.data.selection import prompts_to_drop, shuffle_key
from polaris.observe import phrases
from polaris.observe.metrics import read_records
from polaris.observe.run_files import read_run
from polaris.observe.sections.difficulty import difficulty
from polaris.recipe import rounds
from polaris.recipe.difficulty import measure_difficulty
from polaris.recipe.run import prepare_prompts
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted
from polaris.sampling.guards import GradingFailed

SAMPLES = 4
PROMPTS = prompts_named(sorted((f"p{index}" for index in range(21)), key=lambda name: shuffle_key(0, name)))
PLACE = {prompt.id: index for index, prompt in enumerate(PROMPTS)}


asked = {}
"""The engines of a pass, by its name."""


@pytest.fixture
def config(tmp_path):
    return pass_config(tmp_path, SAMPLES)


@pytest.fixture
def measure(config, tmp_path):
    """A pass into a folder: the ranks' pass rates or errors, the number of samples that each engine was asked for, and the folder."""

    asked.clear()

    def begin(name, changed=None, **script):
        config_of_pass = changed or config
        results, engines = on_ranks(config_of_pass, lambda context: measure_difficulty(context, PROMPTS, tmp_path / name), **script)
        asked[name] = engines
        return results, [len(engine.asked) for engine in engines], tmp_path / name

    return begin


def kept_in(folder):
    """Ids of each part that the journal has."""
    return [[row["id"] for row in part["rows"]] for part in read_records(folder / "difficulty.partial.jsonl")[1:]]


@pytest.mark.parametrize(
    ("tensor_parallel", "stops_after"),
    [(1, (25,)), (1, (25, None)), (1, (None, 29)), (2, (27, 27, None, None))],
    ids=["one rank", "the first of two", "the second of two", "one of two groups of two"],
)
def test_a_stop_keeps_the_prompts_whose_samples_had_all_ended(config, measure, tensor_parallel, stops_after):
    parallel = replace(config, rollout=replace(config.rollout, tensor_parallel=tensor_parallel))
    untouched = (None,) * len(stops_after)
    straight, drawn, expected = measure("straight", parallel, stops_after=untouched)
    engines = len(stops_after) // tensor_parallel
    assert sum(drawn) // tensor_parallel == len(PROMPTS) * SAMPLES

    stopped, _, folder = measure("stopped", parallel, stops_after=stops_after)
    assert [type(error) for error in stopped] == [GenerationInterrupted] * len(stops_after)
    (kept,) = kept_in(folder)
    chunk = [prompt.id for prompt in PROMPTS[: 8 * engines]]
    assert 0 < len(kept) < len(chunk)
    assert set(kept) < set(chunk)
    assert len(kept) == len(set(kept)), "a rank that is not the first of its group counted too"
    ended = Counter(name for engine in asked["stopped"][::tensor_parallel] for name, _ in engine.ended)
    assert set(kept) == {name for name, number in ended.items() if number == SAMPLES}

    resumed, drawn, folder = measure("stopped", parallel, stops_after=untouched)
    assert sum(drawn) // tensor_parallel == (len(PROMPTS) - len(kept)) * SAMPLES, "a prompt that was kept is not drawn again"
    assert (folder / "difficulty.parquet").read_bytes() == (expected / "difficulty.parquet").read_bytes()
    assert [rates.counts for rates in resumed] == [rates.counts for rates in straight]
    assert not (folder / "difficulty.partial.jsonl").exists()


def test_chunks_keep_their_boundaries_over_any_number_of_stops(measure, capsys):
    _, _, expected = measure("straight", stops_after=(None,))
    progress = capsys.readouterr().out
    assert [line.split()[1] for line in progress.splitlines() if line.startswith("difficulty: ")] == ["8/21", "16/21", "21/21"]
    for stops_after in (20, 12, 20, 14):
        measure("stopped", stops_after=(stops_after,))
    folder = expected.with_name("stopped")
    parts = kept_in(folder)
    assert len(parts) > 1
    assert all(len({PLACE[name] // 8 for name in part}) == 1 for part in parts)
    measure("stopped", stops_after=(None,))
    assert (folder / "difficulty.parquet").read_bytes() == (expected / "difficulty.parquet").read_bytes()


@pytest.mark.parametrize("curation", [CurationConfig(), CurationConfig(drop_from=0.8), CurationConfig(drop_from=0.6, drop_up_to=0.15)])
def test_a_pass_that_stops_early_draws_fewer_of_the_same_responses_and_drops_the_same_prompts(config, measure, curation, capsys):
    full = replace(config, curation=curation, difficulty=DifficultyConfig(samples_per_prompt=10))
    early = replace(full, difficulty=replace(full.difficulty, stop_early=True))
    (whole,), (drawn,), _ = measure("full", full)
    assert "left out" not in capsys.readouterr().out
    (part,), (fewer,), folder = measure("early", early)
    assert f"at most 10 to each prompt; {1 - fewer / drawn:.1%} of them left out" in capsys.readouterr().out
    assert drawn == 10 * len(PROMPTS) > fewer >= 4 * len(PROMPTS)
    assert prompts_to_drop(part.counts, 10, curation, 0) == prompts_to_drop(whole.counts, 10, curation, 0)
    assert {count for _, count in part.counts.values()} <= {4, 8, 10}
    assert all(part.counts[name] == whole.counts[name] for name, (_, count) in part.counts.items() if count == 10)
    result = Result(folder / "difficulty.json").read()
    assert (result["responses"], sum(result["histogram"].values())) == (fewer, len(PROMPTS))
    short = sum(count < 10 for _, count in part.counts.values())
    (folder / "stages").mkdir()
    (folder / "difficulty.json").rename(folder / "stages" / "difficulty.json")
    (folder / "config.json").write_text("{}")
    assert f"{short} prompts have fewer than 10 graded responses; each counts at the nearest" in difficulty(read_run(folder))

    for stops_after in (25, 10, 5):
        measure("stopped", early, stops_after=(stops_after,))
    (resumed,), _, again = measure("stopped", early)
    assert resumed.counts == part.counts
    assert (again / "difficulty.parquet").read_bytes() == (folder / "difficulty.parquet").read_bytes()
    (two, _), _, _ = measure("ranks", early, stops_after=(None, None))
    assert two.counts == part.counts


def test_a_pass_that_stopped_early_is_refused_for_another_curation(config, measure):
    early = replace(config, difficulty=DifficultyConfig(samples_per_prompt=8, stop_early=True))
    measure("pass", early)
    (refused,), drawn, _ = measure("pass", replace(early, curation=CurationConfig(drop_from=0.7)))
    assert (drawn, str(refused).count("stop_early.drop_from: 1.0 -> 0.7")) == ([0], 1)
    (refused,), _, _ = measure("pass", replace(early, difficulty=DifficultyConfig(samples_per_prompt=8)))
    assert "stop_early" in str(refused)


def test_half_a_minute_tells_how_long_the_whole_pass_takes_at_most(config, tmp_path, monkeypatch, capsys):
    """The clock is read after each response and goes 10 s a reading: the fourth one has the tokens of four responses in 30 s."""
    readings = count(0.0, 10.0)
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    _, (engine,) = on_ranks(config, lambda context: measure_difficulty(context, PROMPTS, tmp_path / "pass"))
    tokens = sum(5 + seed % 6 for seed in sorted(request.seed for request in engine.asked[: 8 * SAMPLES])[:4])
    left = (21 * SAMPLES * config.difficulty_tokens - tokens) * 30 / tokens
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("difficulty")]
    assert f"at most 84 responses (4 each) and {phrases.count(84 * config.difficulty_tokens)} tokens" in told[0]
    assert told[1].startswith(f"difficulty pass: {tokens / 30:.0f} tokens/s, so at most {phrases.duration(left)} more")
    assert [line.split()[1] for line in told[2:]] == ["8/21", "16/21", "21/21"]


def test_a_pass_that_goes_on_says_at_once_what_is_left(measure, monkeypatch, capsys):
    readings = count(0.0, 10.0)
    measure("stopped", stops_after=(25,))
    capsys.readouterr()
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    measure("stopped")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("difficulty")]
    assert re.match(r"difficulty pass: goes on after \d+/21 prompts, .* left", told[0])
    assert all(line.startswith("difficulty: ") for line in told[1:]), "an estimate by half a minute knows less"


def test_a_model_that_is_a_run_gives_its_pace_before_anything_is_drawn(config, tmp_path, capsys):
    """84 responses of 6 tokens are 504, at 8 a second 63 s."""
    exported = tmp_path / "earlier" / "export" / "step-000001"
    exported.parent.mkdir(parents=True)
    (tmp_path / "model").rename(exported)
    (tmp_path / "earlier" / "config.json").write_text("{}")
    facts = '{"step": 1, "eval/response/length_mean": 6, "throughput/rollout_tokens_per_s": 8}\n'
    (tmp_path / "earlier" / "metrics.jsonl").write_text(facts)
    begun = replace(config, model=replace(config.model, path=str(exported)))
    on_ranks(begun, lambda context: measure_difficulty(context, PROMPTS, tmp_path / "pass"))
    assert "; about 504 tokens, 1m03s at the pace of the run's own evaluation and steps; what" in capsys.readouterr().out


def test_more_samples_than_an_engine_takes_at_once_make_chunks_of_one_prompt(config, measure, capsys):
    many = replace(config, difficulty=replace(config.difficulty, samples_per_prompt=40))
    _, (drawn,), _ = measure("many", many)
    assert drawn == 40 * len(PROMPTS)
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("difficulty: ")]
    assert told == [f"{done}/21" for done in range(1, 22)]


def test_a_stop_before_any_prompt_is_whole_adds_nothing(measure):
    stopped, _, folder = measure("stopped", stops_after=(1,))
    assert isinstance(stopped[0], GenerationInterrupted)
    assert kept_in(folder) == []


@pytest.mark.parametrize(("stops_after", "lost"), [((None, None), 2), ((31, None), 8)])
def test_lost_verdicts_stop_every_rank_also_where_a_stop_is_requested(measure, stops_after, lost):
    failed, _, folder = measure("failed", stops_after=stops_after, lost=lost)
    assert [type(error) for error in failed] == [GradingFailed, GradingFailed]
    counted = int(re.match(r"(\d+) of 64 responses killed their grading process", str(failed[0]))[1])
    assert counted == lost if stops_after[0] is None else lost - SAMPLES < counted <= lost, "a prompt that is not whole is drawn again"
    assert kept_in(folder) == []
    measured, _, _ = measure("failed", stops_after=(None, None), lost=1)
    assert sum(count for _, count in measured[0].counts.values()) == len(PROMPTS) * SAMPLES - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: replace(config, model=replace(config.model, dtype="float32")), "dtype: 'bfloat16' -> 'float32'"),
        (lambda config: replace(config, rope=RopeConfig(factor=2.0)), r"rope\.factor: 1\.0 -> 2\.0"),
    ],
)
@pytest.mark.parametrize("stops_after", [None, 25])
def test_a_pass_of_another_precision_or_rope_is_refused(config, measure, change, message, stops_after):
    measure("pass", stops_after=(stops_after,))
    (refused,), drawn, _ = measure("pass", change(config))
    assert drawn == [0]
    with pytest.raises(ValueError, match=message):
        raise refused


def test_a_pass_of_other_weights_in_the_same_folder_is_refused(config, measure, tmp_path):
    (first,), _, _ = measure("pass")
    (second,), drawn, _ = measure("pass")
    assert (second.counts, drawn) == (first.counts, [0])
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(999) + b"1")
    (refused,), drawn, _ = measure("pass")
    assert drawn == [0]
    with pytest.raises(ValueError, match=r"difficulty\.json was measured with other settings \(weights: '"):
        raise refused


def rated(passed):
    """The prompts with `passed(index)` of 4 as their own pass rate."""
    return tuple(replace(prompt, passes=(passed(index), SAMPLES)) for index, prompt in enumerate(PROMPTS))


def prepared(config, folder, prompts, step):
    """Ids of the prompts that are left at a step, with the pass rates of the set itself."""
    own = replace(config, difficulty=replace(config.difficulty, column="rate"), trainer=TrainerConfig(prompts_per_step=4))
    state = TrainState(step=step, version=step, sampler={}, nonfinite_streak=0)

    def work(context):
        prepared = prepare_prompts(for_training(context, prompts=prompts, pass_rates=PassRates()), RunFolder(folder), state)
        return [prompt.id for prompt in prepared.source.prompts]

    (left,), _ = on_ranks(own, work)
    if isinstance(left, Exception):
        raise left
    return left


def test_pass_rates_of_the_set_say_nothing_of_responses_and_are_refused_when_they_change(config, tmp_path):
    prompts = rated(lambda index: index % 5)
    left = prepared(config, tmp_path / "run", prompts, step=0)
    assert left == [prompt.id for prompt in prompts if prompt.passes != (4, 4)]
    stages = tmp_path / "run" / "stages"
    assert pq.read_table(stages / "difficulty.parquet").column_names == ["id", "passed", "count", "lost"]
    result = Result(stages / "difficulty.json").read()
    assert not {"response_length_mean", "clip_share", "tokens", "seconds"} & result.keys()
    assert result["settings"].keys() == {"column", "prompts", "digest", "passes", "samples_per_prompt"}
    assert result["accuracy"] == sum(index % 5 for index in range(21)) / 84
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "Pass rates from the prompt set's column rate" in difficulty(read_run(tmp_path / "run"))

    with pytest.raises(ValueError, match=r"difficulty\.json was measured with other settings \(passes: '"):
        prepared(config, tmp_path / "run", rated(lambda index: (index + 1) % 5), step=0)


def test_a_run_begins_with_the_pass_rates(config, tmp_path):
    prompts, pass_rates = rated(lambda index: index % 5), PassRates()
    own = replace(config, difficulty=replace(config.difficulty, column="rate"), trainer=TrainerConfig(prompts_per_step=4))
    state = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)
    on_ranks(
        own,
        lambda context: prepare_prompts(for_training(context, prompts=prompts, pass_rates=pass_rates), RunFolder(tmp_path / "run"), state),
    )
    assert pass_rates.counts == {prompt.id: prompt.passes for prompt in prompts}


def test_pass_rates_of_the_set_are_read_again_at_any_step(config, tmp_path):
    prompts = rated(lambda index: index % 5)
    left = prepared(config, tmp_path / "run", prompts, step=0)
    result = tmp_path / "run" / "stages" / "difficulty.json"
    before = result.read_bytes()
    result.unlink()
    assert prepared(config, tmp_path / "run", prompts, step=7) == left, "the choice is made"
    result.with_name("curation.json").unlink()
    assert prepared(config, tmp_path / "run", prompts, step=7) == left
    assert result.read_bytes() == before
