"""Phases before training whose responses have no answer: they stop at once, and keep nothing that stands in the way of the remedy."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from scripted import on_ranks, pass_config, prompts_named

from polaris.config.reward import RewardConfig
from polaris.recipe.difficulty import measure_difficulty
from polaris.recipe.temperature_reading import measure
from polaris.results import Result
from polaris.rollout.types import GenerationInterrupted, Sampling
from polaris.run.thinking import settle_thinking
from polaris.sampling.guards import NoAnswers
from polaris.types import Verdict

PROMPTS = prompts_named(f"p{index}" for index in range(21))


class Unanswered:
    """No response has an answer, but for the first `answered`."""

    def __init__(self, answered=0):
        self._answered = answered

    def score(self, items):
        answered, self._answered = min(self._answered, len(items)), max(0, self._answered - len(items))
        return [Verdict("wrong", "", "2")] * answered + [Verdict("no_answer", "no \\boxed{}")] * (len(items) - answered)


@pytest.fixture
def config(tmp_path):
    return replace(pass_config(tmp_path, samples=4), reward=RewardConfig(require_thinking=False))


def difficulty(config, folder, stops_after, answered=0):
    """Each rank's pass rates or error, and how many samples were drawn."""
    results, engines = on_ranks(
        config, lambda context: measure_difficulty(replace(context, grader=Unanswered(answered)), PROMPTS, folder), stops_after=stops_after
    )
    return results, sum(len(engine.asked) for engine in engines)


def test_the_difficulty_pass_stops_after_its_first_chunk_and_goes_on_with_the_remedy(config, tmp_path):
    failed, drawn = difficulty(config, tmp_path / "stages", (None, None))
    assert [type(error) for error in failed] == [NoAnswers, NoAnswers]
    assert str(failed[0]).startswith("difficulty pass: none of the 64 responses has an answer (")
    assert "no \\boxed{}" in str(failed[0])
    assert "cut off at the token limit" in str(failed[0])
    assert "data.prompt_suffix" in str(failed[0])
    assert drawn == 64
    assert not list((tmp_path / "stages").iterdir())
    mended = replace(config, reward=RewardConfig(require_thinking=True))
    measured, _ = difficulty(mended, tmp_path / "stages", (None, None), answered=1)
    assert len(measured[0].counts) == len(PROMPTS)


def test_the_same_after_a_stop_within_the_chunk(config, tmp_path):
    stopped, _ = difficulty(config, tmp_path / "stages", (25,))
    assert isinstance(stopped[0], GenerationInterrupted | NoAnswers)
    failed, _ = difficulty(config, tmp_path / "stages", (None,))
    assert isinstance(failed[0], NoAnswers)
    assert not list((tmp_path / "stages").iterdir())


def test_one_answer_is_enough_and_the_rest_is_counted(config, tmp_path, capsys):
    difficulty(config, tmp_path / "stages", (None,), answered=1)
    found = Result(tmp_path / "stages" / "difficulty.json").read()
    assert found["no_answer"] == pytest.approx(83 / 84)
    assert found["no_answer/no_box"] + found["no_answer/cut_off"] == pytest.approx(83 / 84)
    assert found["no_answer/cut_off"] > 0
    assert "responses without an answer: " in capsys.readouterr().out


@pytest.mark.parametrize(("temperature", "version", "stops"), [(0.4, 0, True), (1.0, 0, True), (1.4, 0, False), (0.4, 3, False)])
def test_the_probe_stops_where_neither_heat_nor_training_explains_it(config, temperature, version, stops):
    def read(context):
        context.engine.version = version
        return measure(replace(context, grader=Unanswered()), PROMPTS, Sampling(temperature=temperature, max_tokens=10), 0, 4)

    ((found,), _) = on_ranks(config, read)
    assert isinstance(found, NoAnswers) == stops
    assert stops or found.accuracy == 0


@pytest.mark.parametrize("first", [True, False])
def test_ranks_agree_whether_an_answer_needs_the_end_of_thinking(config, tmp_path, first):
    """Engines that answer differently, as they may on other hardware: rank 0 decides for all."""
    (tmp_path / "run").mkdir()
    auto = replace(config, reward=RewardConfig())

    def settle(context):
        opens = (context.world.rank == 0) == first
        tokenizer = SimpleNamespace(batch_decode=lambda tokens, **_: ["<think>" if opens else "hm"] * len(tokens))
        return settle_thinking(auto, PROMPTS, tmp_path / "model", tokenizer, context.engine, context.world).required

    for asked in (32, 0):
        results, engines = on_ranks(auto, settle, stops_after=(None, None))
        assert results == [first, first]
        assert [len(engine.asked) for engine in engines] == [asked, asked]
    assert Result(tmp_path / "run" / "stages" / "thinking.json").read()["required"] is first
