"""A run of three small steps by the real program, and what its records must say given what the engine drew."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from train_ranks import with_engine

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.load import load_config
from polaris.data.gold import Rejected
from polaris.observe.metrics import read_records
from polaris.rollout.types import request_seed
from polaris.run.banner import banner
from polaris.run.checks import check
from polaris.run.loop import train_to
from polaris.run.setup import open_recorder, open_training
from polaris.stop import StopRequest

pytestmark = pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
CHANGES = {
    "name": "run", "rollout.engine": "transformers", "rollout.samples_per_prompt": 4, "rollout.max_response_tokens": 24,
    "trainer.cpu_threads": 1, "trainer.steps": 3, "trainer.prompts_per_step": 2, "optimizer.warmup_steps": 2, "eval.every": 2,
    "eval.samples_per_prompt": 2, "eval.temperature": 0.7, "checkpoint.every": 2, "checkpoint.keep": 5, "observe.tensorboard": "false",
    "observe.samples_per_step": 3, "algorithm.scarce": "generate", "algorithm.min_informative": 0.6, "algorithm.max_draws": 2,
}  # fmt: skip
FAULT = Rejected(id="a", source="x:3", reason="proof")


class Spied:
    """An engine that remembers what it was asked and what it answered."""

    def __init__(self, engine, probe):
        self._engine, self._probe, self.draws = engine, probe, []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def generate(self, requests, sampling, **hooks):
        rollouts = self._engine.generate(requests, sampling, **hooks)
        if requests is not self._probe.requests:
            self.draws.append((list(requests), sampling, list(rollouts)))
        return rollouts


@dataclasses.dataclass
class Run:
    state: TrainState
    records: list
    draws: list
    folder: RunFolder
    changed: list
    output: str
    banner: dict
    pass_rates: dict
    held_out: list


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    config = load_config(CONFIG, [f"--root={root}", *(f"--{name}={value}" for name, value in CHANGES.items())])
    folder, capture, checked = RunFolder(root / "run"), pytest.MonkeyPatch(), check(config)
    lines, changed = [], []
    with open_training(checked, world, StopRequest()) as context:
        engine = Spied(context.sampling.engine, context.source.proof.probe)
        context = dataclasses.replace(with_engine(context, engine), held_out=context.held_out[:3])
        shown = dataclasses.replace(checked, file="my.toml", prompts=dataclasses.replace(checked.prompts, rejected=(FAULT,)))
        told = banner(shown, context, folder, TrainState(step=2, version=0, sampler={}, nonfinite_streak=0))
        capture.setattr(context.console, "note", lines.append)
        recorder = open_recorder(context, folder, 0)
        weights = [value.clone() for _, value in context.learner.policy.named_weights()]
        step = context.console.step

        def watch(record):
            now = [value.clone() for _, value in context.learner.policy.named_weights()]
            if "eval/accuracy" not in record:
                changed.append(not all(torch.equal(a, b) for a, b in zip(weights, now, strict=True)))
            weights[:] = now
            step(record)

        capture.setattr(context.console, "step", watch)
        state = train_to(3, context, folder, TrainState(step=0, version=0, sampler={}, nonfinite_streak=0), recorder)
        recorder.close()
        counts, names = dict(context.pass_rates.counts), [prompt.id for prompt in context.held_out]
        capture.undo()
    return Run(state, read_records(folder.metrics), engine.draws, folder, changed, "\n".join(lines), told, counts, names)


def is_evaluation(record):
    return "eval/accuracy" in record


def steps_of(run):
    return [record for record in run.records if not is_evaluation(record)]


def test_evaluations_come_at_the_start_every_second_step_and_at_the_end(run):
    assert [(r["step"], is_evaluation(r)) for r in run.records] == [(0, True), (1, False), (2, False), (2, True), (3, False), (3, True)]
    held_out = [draw for draw in run.draws if len(draw[0]) == 6]
    assert len(held_out) == 3
    for requests, sampling, _ in held_out:
        assert (sampling.temperature, sampling.max_tokens) == (0.7, 24)
        assert [(request.prompt_id, request.sample) for request in requests] == [(name, s) for name in run.held_out for s in range(2)]
        seeds = [request_seed(0, "eval", 0, run.held_out[p], s) for p in range(3) for s in range(2)]
        assert [request.seed for request in requests] == seeds, "the weights alone differ"
    assert [r["eval/temperature"] for r in run.records if is_evaluation(r)] == [0.7] * 3


def test_every_step_draws_until_enough_groups_teach_something_or_twice(run):
    drawn = [draw for draw in run.draws if len(draw[0]) == 8]
    assert all(sampling.temperature == 1.0 for _, sampling, _ in drawn)
    assert len({request.seed for requests, _, _ in drawn for request in requests}) == 8 * len(drawn), "no seed twice"
    place = 0
    for record in steps_of(run):
        draws = drawn[place : place + record["groups/drawn"] // 2]
        place += len(draws)
        assert record["rollout/tokens"] == sum(len(rollout.tokens) for _, _, rollouts in draws for rollout in rollouts)
        assert record["response/length_max"] == max(len(rollout.tokens) for _, _, rollouts in draws for rollout in rollouts)
        assert record["groups/scarce"] == (record["groups/informative"] < 2)
        assert len(draws) == 2 if record["groups/scarce"] else len(draws) in (1, 2)
        assert record["groups/informative"] + record["groups/all_right"] + record["groups/all_wrong"] == record["groups/drawn"]
    assert place == len(drawn)
    assert any(record["groups/drawn"] == 4 for record in steps_of(run))
    assert run.output.count("further prompts are drawn") == sum(record["groups/drawn"] == 4 for record in steps_of(run))
    for record in steps_of(run):
        if record["groups/scarce"]:
            outcome = "trained all the same" if record["groups/informative"] else "no update, weights stay"
            assert f"step {record['step']}: {record['groups/informative']} of 4 groups teach something" in run.output
            assert outcome in run.output


def test_weights_change_in_steps_with_an_update_and_their_version_counts_them(run):
    applied = [not record["update/skipped"] for record in steps_of(run)]
    assert any(applied)
    assert run.changed == applied
    assert [record["policy/version"] for record in steps_of(run)] == [sum(applied[: i + 1]) for i in range(3)]
    assert [record["optimizer/lr"] for record, any_update in zip(steps_of(run), applied, strict=True) if any_update] == pytest.approx(
        [lr for lr, any_update in zip([5e-5, 1e-4, 1e-4], applied, strict=True) if any_update]
    )
    assert run.state.step == 3
    assert run.state.version == sum(applied)


def test_pass_rates_count_every_response_of_the_policy(run):
    drawn = sum(record["groups/drawn"] for record in steps_of(run))
    assert sum(graded for _, graded in run.pass_rates.values()) == 4 * drawn
    right = sum(record["reward/accuracy"] * 4 * record["groups/drawn"] for record in steps_of(run))
    assert sum(correct for correct, _ in run.pass_rates.values()) == pytest.approx(right)


def test_checkpoints_come_every_second_step_and_at_the_end(run):
    assert layout.complete_steps(run.folder.checkpoints) == [2, 3]


def test_a_few_samples_of_every_step_are_kept(run):
    kept = Counter()
    for path in sorted((run.folder.path / "rollouts").glob("*.jsonl")):
        kept.update([json.loads(line)["verdict"] for line in path.read_text(encoding="utf-8").splitlines()])
    assert sum(kept.values()) == 3 * 3


def test_the_banner_says_what_runs(run):
    assert next(iter(run.banner.items())) == ("config", "my.toml")
    assert run.banner["held out"].endswith(" from embedded:test")
    assert run.banner["engine"] == "transformers, 1 in all"
    assert run.banner["device"] == "CPU, 1 rank"
    assert run.banner["resumed"] == "from step 2"
    assert "x:3 (proof)" in run.banner["errors in embedded:train"]
    assert run.banner["model"].startswith("embedded:model (")


def described():
    """The names in docs/metrics.md as regular expressions; one that begins with "/" has the folder of the one before."""
    folder = ""
    for line in (CONFIG.parents[1] / "docs" / "metrics.md").read_text().splitlines():
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else ():
            folder = folder if name.startswith("/") else name.rpartition("/")[0]
            yield re.sub("bucket_k", r"bucket_\\d", re.sub("<.*?>", "[a-z_]+", folder + name if name.startswith("/") else name))


def test_every_metric_is_on_the_page_and_nothing_else(run):
    names = [re.sub("^eval/response/", "response/", name) for record in run.records for name in record]
    names = {re.sub("^rescue/(?!groups|age)", "mismatch/", name) for name in names}
    pages = set(described())
    assert {name for name in names if not any(re.fullmatch(page, name) for page in pages)} == set()
    elsewhere = {"rescue/age_mean", "rescue/age_max", "memory/[a-z_]+_gib", "seconds/checkpoint", "hook/[a-z_]+"}
    elsewhere |= {"reward/kl_reference", "policy/kl_reference_k1", "policy/kl_reference_k3"}
    elsewhere |= {f"curriculum/{name}" for name in ("target", "expected", "measured", "unknown", "effective_prompts")}
    elsewhere |= {f"reward/process_{name}" for name in ("mean", "share", "marks", "too_many", "results", "lost")}
    elsewhere |= {f"rollout/{name}" for name in ("carried_prompts", "carried_responses", "dropped_tokens", "restarted")}
    elsewhere |= {f"rollout/{name}" for name in ("taken_length_mean", "carried_length_mean", "staleness_mean", "staleness_max")}
    elsewhere |= {"rollout/engines_lost", "seconds/waited", "throughput/mfu_update", "throughput/mfu_step"}
    elsewhere |= {"rollout/diversity_held"} | {"episode/turns_mean", "episode/turns_max", "episode/read_share"}
    elsewhere |= {f"{prefix}data/[a-z_]+/{fact}" for prefix in ("", "eval/") for fact in ("prompts", "accuracy")}  # not in each run
    elsewhere |= {f"{prefix}level/[a-z_]+/[a-z_]+/{fact}" for prefix in ("", "eval/") for fact in ("responses", "accuracy")}
    elsewhere |= {f"{prefix}reward/{fact}" for prefix in ("", "eval/") for fact in ("raised", "[a-z_]+/mean", "[a-z_]+/std")}
    assert {page for page in pages - elsewhere if not any(re.fullmatch(page, name) for name in names)} == set()
