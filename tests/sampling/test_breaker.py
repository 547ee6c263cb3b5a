"""What responses that kill their grading process do to a step: no part in the advantages, and an end of the run when there are many."""

import json
from pathlib import Path

import numpy as np
import programs
import pytest

from polaris.config.schema import RunConfig
from polaris.learn.curate import curate
from polaris.learn.success_buffer import SuccessBuffer
from polaris.sampling.guards import GradingFailed, stop_if_grading_fails
from polaris.types import CRASHED, TIMEOUT, Group, Prompt, Rollout, ScoredRollout, Verdict

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
VERDICTS = {
    "right": Verdict("correct", "equal", "1", reward=1.0),
    "wrong": Verdict("wrong", "", "2"),
    "refused": Verdict("ungradable", "nested deeper than 12", "{{{"),
    "late": Verdict("ungradable", TIMEOUT, "\\Gamma(9)"),
    "dead": Verdict("ungradable", CRASHED, "\\Gamma(8)"),
}


def scored(name, place):
    rollout = Rollout(
        prompt_id="",
        sample=place,
        tokens=np.array([place], "i4"),
        logprobs=np.zeros(1, "f4"),
        versions=np.zeros(1, "i4"),
        finish_reason="stop",
        temperature=1.0,
        seed=0,
    )
    return ScoredRollout(rollout=rollout, text=name, verdict=VERDICTS[name])


def groups_of(*names):
    prompts = [Prompt(id=f"p{i}", text="", tokens=(1,), ground_truth=str(i), source=f"set:{i}") for i in range(len(names))]
    rollouts = [tuple(scored(name, place) for place, name in enumerate(group)) for group in names]
    return [Group(prompt=prompt, rollouts=group) for prompt, group in zip(prompts, rollouts, strict=True)]


def curated(groups):
    return curate(groups, RunConfig(), SuccessBuffer(0), step=1)


@pytest.mark.parametrize("lost", ["late", "dead"])
def test_a_lost_response_leaves_the_advantages_of_its_group_as_if_it_had_not_been_drawn(lost):
    with_it = curated(groups_of(["right", lost, "wrong", "wrong"]))
    without = curated(groups_of(["right", "wrong", "wrong"]))
    assert with_it.advantages[0, [0, 2, 3]].tolist() == without.advantages[0].tolist()
    assert with_it.advantages[0, 1] == 0
    assert [sample.rollout.tokens.tolist() for sample in with_it.samples] == [[0], [2], [3]], "it is not trained on"


def test_text_that_the_screen_refused_is_the_policys_own_fault():
    refused = curated(groups_of(["right", "refused", "wrong", "wrong"]))
    wrong = curated(groups_of(["right", "wrong", "wrong", "wrong"]))
    assert refused.advantages.tolist() == wrong.advantages.tolist()
    assert refused.advantages[0, 1] < 0


@pytest.mark.parametrize("others", [["right", "right"], ["wrong", "wrong"], ["late", "right"]])
def test_a_lost_response_makes_no_group_informative(others):
    found = curated(groups_of(["dead", *others]))
    assert not found.drawn_kinds.informative.any()
    assert found.informative == 0
    assert list(found.samples) == []


@pytest.mark.parametrize(
    ("size", "killed", "stops"),
    [(8, 1, False), (8, 2, True), (1024, 10, False), (1024, 11, True), (100, 1, False), (100, 2, True), (200, 2, False), (200, 3, True)],
)
def test_more_than_one_in_a_hundred_stops_the_run_and_one_alone_never_does(tmp_path, size, killed, stops):
    names = ["late"] * killed + ["refused", "right"] * size
    groups = groups_of(*([name] for name in names[:size]))
    if not stops:
        stop_if_grading_fails(groups, tmp_path, writes=True)
        assert not list(tmp_path.iterdir())
        return
    with pytest.raises(GradingFailed, match=rf"{killed} of {size} responses killed[\s\S]*killed_answers\.jsonl"):
        stop_if_grading_fails(groups, tmp_path, writes=True)


def test_a_rank_without_the_texts_stops_too_and_writes_nothing(tmp_path):
    said = []
    for writes in (True, False):
        folder = tmp_path / str(writes)
        with pytest.raises(GradingFailed) as stopped:
            stop_if_grading_fails(groups_of(["late", "dead"]), folder, writes=writes)
        said.append(str(stopped.value).replace(str(folder), ""))
    assert said[0] == said[1]
    assert [folder.name for folder in tmp_path.iterdir()] == ["True"]


def test_the_strings_are_saved_with_their_prompts(tmp_path):
    groups = groups_of(["right", "late"], ["dead", "wrong"])
    with pytest.raises(GradingFailed):
        stop_if_grading_fails(groups, tmp_path / "run", writes=True)
    saved = [json.loads(line) for line in (tmp_path / "run" / "killed_answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert saved == [
        {"prompt": "p0", "ground_truth": "0", "answer": "\\Gamma(9)", "reason": "timeout"},
        {"prompt": "p1", "ground_truth": "1", "answer": "\\Gamma(8)", "reason": "crashed"},
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_real_run_stops_with_status_1_and_the_strings_on_disk(tmp_path):
    """The gold is legal and its value takes minutes, so whatever the model answers is killed."""
    row = {"answer": "\\sum_{k=1}^{9999}\\cos(k^2)"}
    rows = [row | {"problem": f"Compute {i}+1."} for i in range(8)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "eval.jsonl").write_text('{"problem": "Compute 1+1.", "answer": "2"}\n', encoding="utf-8")
    changes = {
        "root": tmp_path,
        "name": "run",
        "data.path": tmp_path / "set.jsonl",
        "rollout.engine": "transformers",
        "rollout.samples_per_prompt": 2,
        "reward.timeout_s": 0.5,
        "trainer.steps": 1,
        "trainer.cpu_threads": 1,
        "trainer.prompts_per_step": 2,
        "eval.path": tmp_path / "eval.jsonl",
    }
    result = programs.run("-m", "polaris.train", CONFIG, *(f"--{name}={value}" for name, value in changes.items()))
    assert result.returncode == 1, result.stderr[-2000:]
    assert "responses killed their grading process" in result.stderr
    saved = [json.loads(line) for line in (tmp_path / "run" / "killed_answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert saved
    assert {line["reason"] for line in saved} == {"timeout"}
    assert {line["ground_truth"] for line in saved} == {row["answer"]}
    assert "Traceback" not in result.stderr
