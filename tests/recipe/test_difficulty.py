"""The difficulty pass as a real process: killed, resumed, skipped, refused; and its files."""

import json
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import programs
import pyarrow.parquet as pq
import pytest
import torch
from programs import Program, run_ranks

from polaris import cli
from polaris.config.load import load_config
from polaris.data.selection import shuffle_key
from polaris.distributed.mesh import World
from polaris.embedded import resolve
from polaris.observe.charts import difficulty, png
from polaris.observe.console import Console
from polaris.observe.metrics import read_records
from polaris.observe.phrases import histogram
from polaris.recipe.difficulty import measure_difficulty
from polaris.recipe.measured import Journal, Measured, numbers
from polaris.rollout.types import GenerationInterrupted, request_seed
from polaris.run.checks import check
from polaris.run.setup import open_sampling
from polaris.stop import StopRequest

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
PROMPTS, CHUNKS = 65, 9
# 4 waves of 8 sequences at 4 responses per prompt: chunks of 8 prompts.
SMALL = [
    "--trainer.cpu_threads=1",
    "--rollout.engine=transformers",
    "--rollout.max_concurrent=8",
    "--difficulty.samples_per_prompt=4",
    "--trainer.prompts_per_step=8",
]


@pytest.fixture(scope="module")
def prompt_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "set.jsonl"
    path.write_text("".join(Path(resolve("embedded:train")).read_text().splitlines(keepends=True)[:PROMPTS]))
    return path


@pytest.fixture(scope="module")
def start(prompt_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def begin(name, *overrides, program=Program):
        command = ["-m", "polaris.cli", "difficulty", CONFIG, f"--data.path={prompt_set}"]
        return program(*command, f"--root={root}", f"--name={name}", *SMALL, *overrides), root / name / "stages"

    return begin


def finish(process, status=0):
    output, errors = process.communicate(timeout=250)
    assert process.returncode == status, errors[-2000:]
    return output, errors


def chunks_of(output):
    return [line for line in output.splitlines() if line.startswith("difficulty: ")]


def without_seconds(path):
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


@pytest.fixture(scope="module")
def straight(start):
    """A pass that nothing interrupted, and its output."""
    process, stages = start("straight")
    output, _ = finish(process)
    return stages, output


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first call on a new machine builds the embedded model
def test_a_pass_leaves_what_it_promises(straight):
    stages, output = straight
    assert len(chunks_of(output)) == CHUNKS
    left = ["curation.json", "curation.png", "difficulty.json", "difficulty.parquet", "thinking.json"]
    assert sorted(path.name for path in stages.iterdir()) == left
    result, rows = json.loads((stages / "difficulty.json").read_text()), pq.read_table(stages / "difficulty.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"train-{i}" for i in range(PROMPTS)]
    assert all(row["count"] == 4 and row["clip_share"] == 0 and row["response_length_mean"] > 5 for row in rows)
    for k in range(5):
        assert result["histogram"][f"{k}/4"] == sum(row["passed"] == k for row in rows)
    assert result["informative"] == sum(0 < row["passed"] < 4 for row in rows) > 8
    assert result["tokens"] == round(4 * sum(row["response_length_mean"] for row in rows))
    curation = json.loads((stages / "curation.json").read_text())
    assert curation["dropped"] == {row["id"]: "easy" for row in rows if row["passed"] == 4}
    assert curation["before"]["histogram"] == result["histogram"]
    assert curation["after"]["prompts"] == PROMPTS - result["histogram"]["4/4"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_and_resumed_equals_never_interrupted(straight, start, number):
    expected, _ = straight
    process, stages = start(f"interrupted-{number}")
    journal = stages / "difficulty.partial.jsonl"
    deadline = time.monotonic() + 200
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, "the pass ended early"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    finish(process, status=-number if number == signal.SIGKILL else 143)
    kept = [row["id"] for part in read_records(journal)[1:] for row in part["rows"]]
    done = len(kept) // 8  # after SIGTERM the journal ends with a part of a chunk, unless no prompt of it was finished
    assert 3 <= done < CHUNKS
    assert number == signal.SIGTERM or len(kept) % 8 == 0
    assert kept[: 8 * done] == sorted((f"train-{i}" for i in range(PROMPTS)), key=lambda name: shuffle_key(0, name))[: 8 * done]
    assert not (stages / "difficulty.json").exists()

    resumed, _ = finish(start(stages.parent.name)[0])
    assert len(chunks_of(resumed)) == CHUNKS - done, "a finished chunk is not drawn again"
    assert pq.read_table(stages / "difficulty.parquet") == pq.read_table(expected / "difficulty.parquet")
    assert without_seconds(stages / "difficulty.json") == without_seconds(expected / "difficulty.json")
    assert (stages / "curation.json").read_bytes() == (expected / "curation.json").read_bytes()
    assert not journal.exists()


class StopsAtPoll(StopRequest):
    """Stops generation at its `number`-th step."""

    def __init__(self, number):
        super().__init__()
        self._left = number

    def requested(self):
        self._left -= 1
        return self._left <= 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_engine_keeps_the_finished_prompts_of_a_chunk(straight, prompt_set, tmp_path):
    expected, _ = straight
    checked = check(load_config(CONFIG, [f"--data.path={prompt_set}", f"--root={tmp_path}", *SMALL]))
    world, stages = World(rank=0, size=1, device=torch.device("cpu"), mesh=None), tmp_path / "stages"
    with open_sampling(checked, world, StopsAtPoll(60), Console(True, 0)) as context:
        with pytest.raises(GenerationInterrupted):
            measure_difficulty(context, checked.prompts.prompts, stages)
        kept = [row["id"] for part in read_records(stages / "difficulty.partial.jsonl")[1:] for row in part["rows"]]
        assert len(kept) % 8, "no part of a chunk was kept"
        drawn, submit = [], context.engine.submit
        context.engine.submit = lambda requests, sampling: drawn.extend(requests) or submit(requests, sampling)
        measure_difficulty(replace(context, stop=StopRequest()), checked.prompts.prompts, stages)
    left = sorted({prompt.id for prompt in checked.prompts.prompts} - set(kept), key=lambda name: shuffle_key(0, name))
    seeds = [request_seed(0, "difficulty", 0, name, sample) for name in left for sample in range(4)]
    assert [request.seed for request in drawn] == seeds
    assert pq.read_table(stages / "difficulty.parquet") == pq.read_table(expected / "difficulty.parquet")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_finished_pass_is_read_and_curated_anew_but_never_mixed_up(straight, start):
    stages, _ = straight
    measured = (stages / "difficulty.parquet").read_bytes()
    output, _ = finish(start("straight", "--curation.drop_from=0.75")[0])
    assert chunks_of(output) == []
    assert (stages / "difficulty.parquet").read_bytes() == measured
    kept = json.loads((stages / "curation.json").read_text())["after"]["histogram"]
    assert kept["3/4"] == kept["4/4"] == 0 < kept["2/4"]

    _, errors = finish(start("straight", "--difficulty.temperature=0.7")[0], status=2)
    assert "difficulty.json was measured with other settings (temperature: 0.6 -> 0.7)" in errors


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(900)
def test_two_ranks_measure_what_one_does(straight, start):
    stages, _ = straight
    (output, _), shared = start("two", program=partial(run_ranks, 2))
    assert len(chunks_of(output)) == 5  # of 16 prompts; the last one is a single prompt, which leaves a rank without work
    assert pq.read_table(shared / "difficulty.parquet") == pq.read_table(stages / "difficulty.parquet")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--trainer.prompts_per_step=64", "fewer than trainer.prompts_per_step = 64"),
        ("--curation.histogram=[1, 1, 1, 1, 1]", "curation.histogram[4] (pass rates from 0.8) has a share above 0"),
    ],
)
def test_a_set_that_cannot_be_trained_on_ends_in_numbers(straight, start, override, message):
    stages, _ = straight
    before = (stages / "curation.json").read_bytes()
    _, errors = finish(start("straight", override)[0], status=2)
    assert message in errors
    assert (stages / "curation.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_chunk_whose_grading_fails_is_not_kept(start, tmp_path):
    rows = [{"problem": f"Compute {i}+1.", "answer": "\\sqrt{x+3}"} for i in range(2)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    process, stages = start("lost", f"--data.path={tmp_path / 'set.jsonl'}", "--trainer.prompts_per_step=2", "--reward.timeout_s=1e-6")
    _, errors = finish(process, status=1)
    assert "8 of 8 responses killed their grading process" in errors
    assert (stages / "difficulty.partial.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pass_rates_of_the_set_itself_are_curated_and_begin_the_count(prompt_set, tmp_path):
    problems = [json.loads(line) for line in prompt_set.read_text().splitlines()[:12]]
    rated = [problem | {"rate": f"{index % 4}/3"} for index, problem in enumerate(problems)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in rated))
    command = ["-m", "polaris.train", CONFIG, f"--data.path={tmp_path / 'set.jsonl'}", f"--root={tmp_path}"]
    command += [
        "--name=run",
        "--rollout.engine=transformers",
        "--trainer.prompts_per_step=4",
        "--trainer.steps=1",
        "--eval.path=none",
        "--trainer.cpu_threads=1",
    ]
    output = programs.run(*command, "--difficulty.samples_per_prompt=3", "--difficulty.column=rate")
    assert output.returncode == 0, output.stderr[-2000:]
    assert "difficulty:" not in output.stdout
    assert "9 of 12 prompts left (dropped: 3 easy)" in output.stdout
    offline = {problem["id"]: (index % 4, 3) for index, problem in enumerate(problems)}
    rows = pq.read_table(tmp_path / "run" / "stages" / "difficulty.parquet").to_pylist()
    assert {row["id"]: (row["passed"], row["count"]) for row in rows} == offline
    ledger = pq.read_table(tmp_path / "run" / "checkpoints" / "step-000001" / "ledger.parquet").to_pylist()
    drawn = {row["id"] for row in ledger if row["graded"] > 3}
    assert len(drawn) == 4
    assert all((row["passed"], row["graded"]) == offline[row["id"]] for row in ledger if row["id"] not in drawn)
    assert all(row["graded"] == 3 + 8 and row["passed"] >= offline[row["id"]][0] for row in ledger if row["id"] in drawn)
    assert "Pass rates from the prompt set&#x27;s column rate" in (tmp_path / "run" / "report.html").read_text().replace("'", "&#x27;")


@pytest.mark.parametrize(
    ("samples", "message"), [(0, "= 0 means no difficulty pass; set it"), (1, "= 1 finds no prompt that is solved sometimes")]
)
def test_a_number_of_samples_that_measures_nothing_is_refused(tmp_path, monkeypatch, capsys, samples, message):
    arguments = ["polaris", "difficulty", str(CONFIG), f"--root={tmp_path}", f"--difficulty.samples_per_prompt={samples}"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"difficulty.samples_per_prompt {message}" in capsys.readouterr().err


def row(name, passed=1, count=2, **more):
    return Measured(**{"id": name, "passed": passed, "count": count, "lost": 0, "tokens": 10, "clipped": 0} | more)


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_torn_chunk_is_dropped_and_the_next_one_begins_a_line(tmp_path, torn):
    path, settings = tmp_path / "partial.jsonl", {"seed": 0}
    journal = Journal(path, settings, write=True)
    journal.append([row("a"), row("b")], 1.5)
    whole = path.read_bytes()
    journal.append([row("c"), row("d")], 2.0)
    path.write_bytes(path.read_bytes()[:-torn])

    resumed = Journal(path, settings, write=True)
    # Only the newline is missing after one byte: that chunk is whole.
    assert set(resumed.rows) == ({"a", "b", "c", "d"} if torn == 1 else {"a", "b"})
    if torn > 1:
        assert path.read_bytes() == whole
    resumed.append([row("e")], 3.0)
    assert set(Journal(path, settings, write=False).rows) == set(resumed.rows) >= {"a", "b", "e"}
    assert resumed.seconds == (6.5 if torn == 1 else 4.5)


def test_a_journal_of_other_settings_is_refused(tmp_path):
    Journal(tmp_path / "partial.jsonl", {"seed": 0, "model": "a"}, write=True)
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        Journal(tmp_path / "partial.jsonl", {"seed": 1, "model": "a"}, write=True)


def test_numbers_leave_lost_verdicts_out_of_rates():
    rows = [row("a", 0, 4), row("b", 4, 4, clipped=1), row("c", 3, 3, lost=1), row("d", 1, 2, lost=2, clipped=3), row("e", 0, 0, lost=4)]
    found = numbers(rows, 4, 2.5)
    assert found["histogram"] == {"0/4": 1, "1/4": 0, "2/4": 1, "3/4": 0, "4/4": 2}
    assert (found["informative"], found["informative_share"], found["prompts_without_verdict"], found["lost_verdicts"]) == (1, 0.2, 1, 7)
    assert found["accuracy"] == 8 / 13
    assert (found["response_length_mean"], found["clip_share"], found["tokens"]) == (2.5, 0.2, 50)


def test_histogram_as_text_shows_what_is_kept():
    shown = histogram([4, 0, 2], [4, 0, 1])
    assert [line.count("█") for line in shown] == [32, 0, 8, 0]
    assert [line.count("░") for line in shown] == [0, 0, 8, 0]
    assert [line.split()[-3:] for line in shown] == [["4", "->", "4"], ["0", "->", "0"], ["2", "->", "1"], ["6", "->", "5"]]


@pytest.mark.parametrize("sizes", [[0, 0], [5, 0, 3], list(range(40))])
def test_histogram_as_a_picture(sizes):
    figure = difficulty(sizes, [0] * len(sizes))
    assert [bar.get_height() for bar in figure.axes[0].patches] == [*sizes, *[0] * len(sizes)]
    assert png(figure).startswith(b"\x89PNG")
