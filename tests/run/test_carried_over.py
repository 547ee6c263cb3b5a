"""Runs whose steps begin more prompts than they take: nothing is lost, and a run that was stopped or resumed is the one that was not."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from polaris import train
from polaris.checkpoint import layout, run_folder
from polaris.checkpoint.store import begin_with
from polaris.config.load import load_config
from polaris.data.sampler import Sampler
from polaris.embedded import resolve
from polaris.observe.metrics import deterministic, read_records
from polaris.recipe.job import train_and_evaluate
from polaris.rollout.types import RolloutRequest, Sampling
from polaris.run.checks import check
from polaris.run.loop import Recorder
from polaris.run.resume import resume
from polaris.run.setup import open_training
from polaris.sampling.carried_file import read
from polaris.stop import StopRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
# The first run on a new machine builds the embedded model.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SIZE, PLACES, SAMPLES, LAST, SEED = 16, 4, 4, 6, 3
SETTINGS = {
    "seed": SEED,
    "rollout.engine": "transformers",
    "rollout.samples_per_prompt": SAMPLES,
    "rollout.max_response_tokens": 96,
    "rollout.oversample": 2,
    "rollout.carry_over": "true",
    "rollout.max_staleness": 2,
    "trainer.prompts_per_step": PLACES,
    "trainer.cpu_threads": 1,
    "trainer.steps": LAST,
    "optimizer.lr": 3e-5,
    "algorithm.rescue": 1,
    "checkpoint.every": 1,
    "checkpoint.keep": 100,
    "eval.path": "none",
    "observe.tensorboard": "false",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("carried")
    rows = [json.loads(line) for line in Path(resolve("embedded:train")).read_text().splitlines()]
    chosen = [row for row in rows if row["difficulty"] in (4, 5, 6)][:SIZE]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return root


def arguments(root, name, **changed):
    settings = SETTINGS | {"data.path": root / "train.jsonl", "root": root, "name": name} | changed
    return [f"--{key}={value}" for key, value in settings.items()]


def run(world, root, name, stop=None):
    run_folder._HELD.clear()  # as a new process would begin
    prepared = train.prepare([str(CONFIG), *arguments(root, name)])
    train_and_evaluate(*prepared, world, stop or StopRequest())
    return prepared[1].path


@pytest.fixture(scope="module")
def straight_with_groups(world, root):
    """A run that nothing interrupted, and the groups that it took."""
    taken, write = [], Recorder.step

    def step(recorder, record, groups, samples):
        taken.extend(groups)
        write(recorder, record, groups, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "step", step)
        return run(world, root, "straight"), taken


@pytest.fixture(scope="module")
def straight(straight_with_groups):
    return straight_with_groups[0]


def records(path):
    return [deterministic(record) for record in read_records(path / "metrics.jsonl")]


def carried(path, step):
    return read(layout.step_folder(path / "checkpoints", step))


def assert_same(path, straight):
    assert records(path) == records(straight)
    mine, theirs = (load_file(one / "export" / f"step-{LAST:06d}" / "model.safetensors") for one in (path, straight))
    assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_the_run_trains_on_what_it_has_carried_over(straight):
    found = records(straight)
    assert [record["policy/version"] for record in found] == list(range(1, LAST + 1))
    assert [bool(carried(straight, step)) for step in range(1, LAST + 1)] == [*[True] * (LAST - 1), False], "nothing is left at the end"
    assert found[-1]["rollout/carried_prompts"] == 0
    stale = [record for record in found if record["rollout/staleness_max"]]
    assert all(record["stale/logprob_gap_mean"] > 100 * record["mismatch/logprob_gap_mean"] for record in stale)
    assert len(stale) > 2
    drawn, lengths = Counter(), 0
    for record in found:
        lengths += record["rollout/tokens"]
        drawn["groups"] += record["groups/drawn"]
        drawn["tokens"] += record["groups/drawn"] * SAMPLES * record["rollout/taken_length_mean"]
    assert lengths == pytest.approx(drawn["tokens"]), "every token that was drawn is taken, and none is counted twice"


def test_resumed_it_equals_the_run_that_was_never_interrupted(world, root, straight):
    copy = root / "resumed"
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "export")
    for step in range(4, LAST + 1):
        shutil.rmtree(layout.step_folder(copy / "checkpoints", step))
    assert any(begun for _, _, _, begun in carried(copy, 3))
    assert_same(run(world, root, "resumed"), straight)


def test_with_another_reward_what_is_carried_begins_anew(world, root, straight):
    copy = root / "rewarded"
    shutil.copytree(straight, copy)
    for step in range(4, LAST + 1):
        shutil.rmtree(layout.step_folder(copy / "checkpoints", step))
    before = carried(copy, 3)
    assert any(scored for _, _, scored, _ in before)
    run_folder._HELD.clear()
    checked, folder = train.prepare([str(CONFIG), *arguments(root, "rewarded", **{"reward.timeout_s": 7}), "--change"])
    with open_training(checked, world, StopRequest()) as context:
        resume(context, folder)
        after = context.source.carried.started
    assert [(one.prompt_id, one.step) for one in after] == [(name, step) for name, step, _, _ in before]
    assert not any(one.rollouts for one in after)


class StopAfter(StopRequest):
    """Asked to stop while it draws, the `calls`-th time that it is asked."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def requested(self):
        self.calls -= 1
        return self.calls <= 0


def test_stopped_in_the_middle_of_a_step_that_goes_on_with_responses_nothing_is_lost(world, root, straight, capsys):
    path = run(world, root, "stopped", StopAfter(140))
    assert "the unfinished rollouts are abandoned" in capsys.readouterr().out
    (newest,) = layout.complete_steps(path / "checkpoints")[-1:]
    assert 0 < newest < LAST
    assert any(begun for _, _, _, begun in carried(path, newest))
    assert_same(run(world, root, "stopped"), straight)


@pytest.fixture
def opened(world, root):
    """A function that opens a run of its own."""

    def opened(name, **changed):
        return open_training(check(load_config(CONFIG, arguments(root, name, **changed))), world, StopRequest())

    return opened


def test_each_token_keeps_the_log_prob_and_the_version_of_the_weights_that_drew_it(opened, straight_with_groups):
    straight, taken = straight_with_groups
    rollouts = [scored.rollout for group in taken for scored in group.rollouts]
    versions = np.concatenate([rollout.versions for rollout in rollouts])
    stored = np.concatenate([rollout.logprobs for rollout in rollouts])
    assert sum(len(set(rollout.versions.tolist())) > 1 for rollout in rollouts) > 3, "some were drawn by several weights"
    with opened("measured") as context:
        learner, prompts = context.learner, {prompt.id: prompt.tokens for prompt in context.all_prompts}
        requests = [RolloutRequest(prompt_id=r.prompt_id, sample=r.sample, prompt_tokens=prompts[r.prompt_id], seed=0) for r in rollouts]
        gaps = []
        for version in range(LAST):
            if version:
                begin_with(layout.step_folder(straight / "checkpoints", version), learner.policy, None)
            gaps.append(np.abs(learner.logprobs(requests, rollouts) - stored))
    for version, gap in enumerate(gaps):
        assert gap[versions == version].max() < 1e-4
        assert gap[versions != version].max() > 1e-2, "other weights have other log-probs"


def test_what_is_trained_on_over_an_epoch_has_the_lengths_of_what_is_drawn(opened):
    order, temperature = Sampler(SIZE, 1, SEED), 1.3
    with opened("frozen", **{"trainer.steps": 99, "rollout.temperature": temperature}) as context:
        source = replace(context.source, teaching=lambda groups, step: np.ones(len(groups), bool))
        engine, taken, step = context.sampling.engine, [], 0
        names = [prompt.id for prompt in context.all_prompts]
        source.publish(context.learner.weights(), 0)
        while min(Counter(group.prompt.id for group in taken).get(name, 0) for name in names) < 2:
            step += 1
            taken += source.next(step, temperature)
            source.publish(context.learner.weights(), step)
        begun = [group.prompt.id for group in taken] + [one.prompt_id for one in source.carried.started]
        state = source.sampler.state()
        due = begun + [names[index] for index in state.get("deferred", ())]
        assert Counter(due) == Counter(names[order.next()[0]] for _ in range(state["epoch"] * SIZE + state["cursor"])), "each once an epoch"
        rollouts = [scored.rollout for group in taken for scored in group.rollouts]
        prompts = {prompt.id: prompt.tokens for prompt in context.all_prompts}
        requests = [
            RolloutRequest(prompt_id=r.prompt_id, sample=r.sample, prompt_tokens=prompts[r.prompt_id], seed=r.seed) for r in rollouts
        ]
        sampling = Sampling(temperature=temperature, max_tokens=SETTINGS["rollout.max_response_tokens"])
        whole = engine.generate(requests, sampling, on_progress=lambda progress: None, should_stop=lambda: False)
    gone_on = 0
    for mine, theirs in zip(rollouts, whole, strict=True):
        own = int((mine.versions == mine.versions[0]).sum())
        assert mine.tokens[:own].tolist() == theirs.tokens[:own].tolist(), "a response begins as it would without a cut"
        assert own < len(mine.tokens) or len(mine.tokens) == len(theirs.tokens)
        gone_on += own < len(mine.tokens)
    differences = np.array([len(mine.tokens) - len(theirs.tokens) for mine, theirs in zip(rollouts, whole, strict=True)])
    assert gone_on > 10
    assert differences.any(), "the rest of a response is another one"
    assert abs(differences.mean()) < 3 * differences.std() / len(differences) ** 0.5


def test_responses_of_other_settings_begin_anew(world, opened, root, straight):
    """As --change lets one resume; a carried prompt is drawn in any case."""
    changes = [
        {"rollout.samples_per_prompt": 3},
        {"rollout.max_response_tokens": 20},
        {"rollout.carry_over": "false"},
        {"rollout.oversample": 1},
    ]
    for number, changed in enumerate(changes):
        carry = {"rollout.carry_over": "false"} if "rollout.oversample" in changed else {}
        with opened(f"changed-{number}", **changed, **carry) as context:
            source, config = context.source, context.config
            source.publish(context.learner.weights(), 3)
            source.carried.load(layout.step_folder(straight / "checkpoints", 3))
            before = source.carried.started
            groups = source.next(4, 1.0)
            names = [group.prompt.id for group in groups] + [one.prompt_id for one in source.carried.started]
            assert {one.prompt_id for one in before} <= set(names)
            assert len(names) == len(set(names)) == config.prompts_begun
            assert all(len(group.rollouts) == config.rollout.samples_per_prompt for group in groups)
            lengths = [len(scored.rollout.tokens) for group in groups for scored in group.rollouts]
            assert max(lengths) <= config.rollout.max_response_tokens
            if changed != {"rollout.samples_per_prompt": 3}:
                assert source.carried.facts["rollout/restarted"] > 0
