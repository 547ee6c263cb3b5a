"""Steps of the real program on the embedded model: scarce batches, and the ledger and stored successes over a resume."""

import gzip
import json
import signal
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.store import TrainState
from polaris.config.load import load_config
from polaris.embedded import resolve
from polaris.observe.metrics import deterministic, read_records
from polaris.rollout.types import GenerationInterrupted
from polaris.run.checks import check
from polaris.run.loop import train_to
from polaris.run.resume import resume
from polaris.run.setup import open_recorder, open_training
from polaris.run.step import train_step
from polaris.sampling.stage_source import scarcity
from polaris.stop import StopRequest

# The first run on a new machine builds the embedded model.
pytestmark = pytest.mark.timeout(600)
START = TrainState(step=0, version=0, sampler={}, nonfinite_streak=0)


CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"


def test_a_step_without_gradient_names_a_least_number_only_where_one_is_asked_for():
    wants, wants_none = (load_config(CONFIG, [f"--algorithm.min_informative={share}"]) for share in (0.25, 0))
    per_step = wants.trainer.prompts_per_step
    assert f"0 of 4 groups teach something (algorithm.min_informative asks for {per_step / 4:.3g}): no" in scarcity(0, 4, wants, 2, "no")
    assert scarcity(0, 4, wants_none, 2, "no update") == "step 2: 0 of 4 groups teach something: no update"


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """One problem of each of eight lengths: some the model nearly always solves, some it seldom does."""
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = [next(row for row in rows if row["difficulty"] == difficulty) for difficulty in (1, 3, 4, 5, 6, 7, 8, 10)]
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return path


@contextmanager
def rooms_of(world, problems, root, *overrides):
    small = [
        "--rollout.engine=transformers",
        "--rollout.samples_per_prompt=4",
        "--eval.path=none",
        "--trainer.cpu_threads=1",
        "--observe.samples_per_step=100",
    ]
    config = load_config(CONFIG, [f"--data.path={problems}", f"--root={root}", "--observe.tensorboard=false", *small, *overrides])
    with open_training(check(config), world, StopRequest()) as context:
        yield context


# At this temperature all responses to a prompt are the same, so that no group is informative.
NOTHING_TO_LEARN = ["--rollout.temperature=0.01", "--trainer.prompts_per_step=2", "--algorithm.min_informative=0.5"]


@pytest.mark.slow
@pytest.mark.parametrize(("scarce", "drawn"), [("train", [2, 2, 2]), ("skip", [2, 2, 2]), ("generate", [6, 2, 6])])
def test_where_nothing_is_informative_weights_stay_and_the_step_counts(world, problems, tmp_path, capsys, scarce, drawn):
    overrides = [*NOTHING_TO_LEARN, f"--algorithm.scarce={scarce}", "--algorithm.max_draws=3", "--algorithm.substitution=true"]
    with rooms_of(world, problems, tmp_path, *overrides) as context:
        before = [weight.clone() for _, weight in context.learner.policy.named_weights()]
        state, records, counted = START, [], 0
        for draws in drawn:
            state, record, batch = train_step(context, state)
            counted += 4 * draws
            assert sum(len(group.rollouts) for group in batch.drawn) == 4 * draws
            assert sum(graded for _, graded in context.pass_rates.counts.values()) == counted
            records.append(record)
        assert [record["groups/drawn"] for record in records] == drawn
        assert [record["epoch"] for record in records] == ([0, 0, 1] if scarce == "generate" else [0, 0, 0])
        for record in records:
            assert record["groups/informative"] == record["groups/substituted"] == 0
            assert record["groups/all_right"] + record["groups/all_wrong"] == record["groups/drawn"]
            assert record["groups/scarce"] == record["update/skipped"] == 1
        if scarce == "generate":
            assert all(graded <= 8 for _, graded in context.pass_rates.counts.values()), "a step holds no prompt twice"
            assert len(context.pass_rates.counts) == 8
        assert (state.step, state.version, state.sampler) == (3, 0, context.source.sampler.state())
        assert all(torch.equal(a, b) for a, (_, b) in zip(before, context.learner.policy.named_weights(), strict=True))
    output = capsys.readouterr().out
    assert output.count("no update, weights stay") == 3
    assert output.count("further prompts are drawn") == (4 if scarce == "generate" else 0)


@pytest.mark.slow
def test_kl_to_the_base_model_begins_at_nothing_and_a_large_coefficient_keeps_it_small(world, problems, tmp_path):
    found = {}
    for coefficient in (0, 30):
        overrides = [f"--algorithm.kl_coefficient={coefficient}", "--optimizer.lr=3e-5", "--optimizer.warmup_steps=1"]
        overrides += ["--algorithm.kl=k3", "--trainer.prompts_per_step=8"]
        with rooms_of(world, problems, tmp_path, *overrides) as context:
            state, kl = START, []
            for _ in range(6):
                state, record, _ = train_step(context, state)
                kl.append(record["policy/kl_reference_k3"])
            found[coefficient] = kl
    print(found)
    assert abs(found[0][0]) < 1e-9
    assert found[30][0] == found[0][0]
    # The first update knows of no distance, and the second of next to none.
    assert all(0 < held < free for free, held in zip(found[0][3:], found[30][3:], strict=True))
    assert found[30][-1] < 0.1 * found[0][-1]


@pytest.fixture
def handlers():
    """Puts the signal handlers of the test run back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_step_interrupted_between_its_draws_leaves_no_trace(world, problems, tmp_path, monkeypatch, handlers):
    overrides = ["--trainer.prompts_per_step=1", "--algorithm.scarce=generate", "--algorithm.rescue=2"]
    with rooms_of(world, problems, tmp_path, *NOTHING_TO_LEARN, *overrides) as context:
        state, record, _ = train_step(context, START)
        assert record["groups/drawn"] == 3
        before = context.pass_rates.counts
        context.successes.save(tmp_path)
        stored = pq.read_table(tmp_path / "successes.parquet")
        assert stored.num_rows > 0
        context.sampling.stop.install()
        monkeypatch.setattr(context.console, "note", lambda text: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(GenerationInterrupted):
            train_step(context, state)
        assert context.source.sampler.state()["cursor"] == 5, "the first draw of the step was over"
        context.successes.save(tmp_path)
        assert context.pass_rates.counts == before
        assert pq.read_table(tmp_path / "successes.parquet").equals(stored)


def train(world, problems, root, lasts, *more):
    """Train to each of `lasts` in context of their own; the records, and what the last checkpoint keeps."""
    overrides = ["--trainer.prompts_per_step=4", "--checkpoint.every=100", "--algorithm.substitution=true", "--algorithm.rescue=2"]
    overrides += ["--optimizer.lr=1e-4", "--optimizer.warmup_steps=4", "--algorithm.kl=k1", "--algorithm.kl_coefficient=0.01"]
    folder = RunFolder(root)
    for last in lasts:
        with rooms_of(world, problems, root.parent, f"--name={root.name}", f"--trainer.steps={lasts[-1]}", *overrides, *more) as context:
            state = resume(context, folder)
            if state.step:
                context.source.sampler.restore(state.sampler)
            recorder = open_recorder(context, folder, state.step)
            state = train_to(last, context, folder, state, recorder)
            recorder.close()
    tables = [pq.read_table(folder.newest_checkpoint() / name) for name in ("ledger.parquet", "successes.parquet")]
    return [deterministic(record) for record in read_records(folder.metrics)], tables


@pytest.mark.slow
def test_a_curriculum_draws_the_same_prompts_after_a_resume(world, problems, tmp_path):
    own = ["--curriculum.target=[0.8, 0.4]", "--curriculum.half_life=2", "--curriculum.plateau=1"]
    own += ["--algorithm.scarce=generate", "--algorithm.min_informative=1.0"]
    records, _ = train(world, problems, tmp_path / "straight", [3], *own)
    again, _ = train(world, problems, tmp_path / "resumed", [1, 3], *own)
    assert again == records
    assert [record["curriculum/target"] for record in records] == pytest.approx([0.8, 0.6, 0.4])
    assert records[0]["curriculum/unknown"] == 1
    straight, resumed = (RunFolder(tmp_path / name) for name in ("straight", "resumed"))
    for name in ("prompt_statistics.parquet", "plateau.json"):
        assert (straight.newest_checkpoint() / name).read_bytes() == (resumed.newest_checkpoint() / name).read_bytes()
    prompts = pq.read_table(straight.path / "prompts.parquet")
    assert prompts == pq.read_table(resumed.path / "prompts.parquet")
    assert sum(prompts.column("times_drawn").to_pylist()) == sum(record["groups/drawn"] for record in records)


@pytest.mark.slow
def test_ledger_and_successes_are_the_same_after_a_resume(world, problems, tmp_path):
    records, (ledger, successes) = train(world, problems, tmp_path / "straight", [8])
    assert sum(record["rescue/groups"] for record in records) > 0
    assert sum(record["groups/substituted"] for record in records) > 0
    assert [record["optimizer/lr"] for record in records] == pytest.approx([1e-4 * min(step, 4) / 4 for step in range(1, 9)])
    assert ledger.column("graded").to_pylist() == [4 * 4] * 8
    assert successes.num_rows > 8
    again, (resumed_ledger, resumed_successes) = train(world, problems, tmp_path / "resumed", [0, 3, 6, 8])
    assert again == records, "the reference is the base model, not the checkpoint"
    assert abs(records[0]["reward/kl_reference"]) < 1e-3 < records[-1]["reward/kl_reference"]
    assert resumed_ledger.equals(ledger)
    assert resumed_successes.equals(successes)


@pytest.mark.slow
def test_a_run_that_learns_nothing_is_warned_of_it_once_also_over_a_resume(world, problems, tmp_path, capsys):
    flat = ["--rollout.temperature=0.01", "--rollout.max_response_tokens=24", "--rollout.samples_per_prompt=2", "--algorithm.kl=off"]
    records, _ = train(world, problems, tmp_path / "flat", [21, 23], *flat, "--trainer.prompts_per_step=8")
    warned = [line for line in capsys.readouterr().out.splitlines() if "groups teach something; " in line]
    assert [line.partition(":")[0] + line.partition(":")[2].partition(":")[0] for line in warned] == ["warning step 20"]
    assert "0% of the last 160 groups" in warned[0]
    assert len(records) == 23
    assert all(record["groups/informative"] == 0 for record in records)


@pytest.mark.slow
def test_a_profiled_step_computes_what_it_computes_otherwise(world, problems, tmp_path, capsys):
    small = ["--rollout.max_response_tokens=64", "--algorithm.kl=off"]
    records, _ = train(world, problems, tmp_path / "plain", [3], *small)
    profiled, _ = train(world, problems, tmp_path / "profiled", [3], *small, "--observe.profile=[2, 3]")
    assert profiled == records
    assert any(record["optimizer/grad_norm"] > 0 for record in records[1:]), "there were updates to trace"
    folder = tmp_path / "profiled" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002.json.gz", "step-000003.json.gz"]
    traced = [json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] for path in sorted(folder.iterdir())]
    names = {event.get("name") for events in traced for event in events}
    assert "aten::mm" in names
    assert any(name.startswith("Optimizer.step") for name in names if name)
    assert f"step 3: the trace of update and sync: {folder / 'step-000003.json.gz'}" in capsys.readouterr().out
