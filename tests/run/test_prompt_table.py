"""`prompts.parquet`: every prompt of the run with what is known of it, dropped ones included; and the statistics behind it."""

from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from groups import group, prompt

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig
from polaris.data.pass_rates import PassRates
from polaris.data.prompt_statistics import PromptStatistics
from polaris.results import Result
from polaris.run.prompt_table import write_prompts

CONFIG = RunConfig(stage=(StageConfig(steps=3), StageConfig(steps=4)))


def rows_of(context, folder):
    write_prompts(context, folder, 4)
    return {row.pop("id"): row for row in pq.read_table(folder.path / "prompts.parquet").to_pylist()}


def test_every_prompt_has_a_row_with_what_is_known_of_it(tmp_path):
    folder = RunFolder(tmp_path)
    prompts = (replace(prompt("a"), set="x", row={"level": 2}), *map(prompt, "bcd"))
    context = SimpleNamespace(all_prompts=prompts, pass_rates=PassRates(), statistics=PromptStatistics(2), config=CONFIG)
    rows = rows_of(context, folder)
    assert list(rows) == list("abcd")
    assert {key for key, value in rows["b"].items() if value is not None} == {"passed", "count", "times_drawn"}

    folder.stages.mkdir()
    offline = {"id": list("abcd"), "passed": [1, 8, 2, 0], "count": [8, 8, 4, 4]}
    pq.write_table(pa.table(offline), folder.stages / "difficulty.parquet")
    for name, passed, count in zip(*offline.values(), strict=True):
        context.pass_rates.add_offline(name, passed, count)
    context.statistics.begin(context.pass_rates.counts)
    Result(folder.stages / "curation.json").write({"dropped": {"b": "easy"}})
    Result(folder.stages / "stage-1.json").write({"step": 3, "dropped": ["c"]})
    Result(folder.stages / "stage-2.json").write({"step": 6, "dropped": ["a"]})  # of an end that is none any more
    groups = [[group("a", "+-+x"), group("c", "----")], [group("a", "++++")]]
    for step, drawn in enumerate(groups, start=2):
        context.pass_rates.add_groups(drawn)
        context.statistics.add_groups(drawn, step)
    rows = rows_of(context, folder)
    lengths = [len(scored.rollout.tokens) for drawn in groups for one in drawn if one.prompt.id == "a" for scored in one.rollouts]
    assert rows["a"] == pytest.approx(
        {
            "set": "x",
            "level": "2",
            "offline_passed": 1,
            "offline_count": 8,
            "passed": 7,
            "count": 15,
            "recent_passed": (((1 * 2**-1 + 2) * 2**-0.5) + 4) * 2**-0.5,
            "recent_count": (((8 * 2**-1 + 3) * 2**-0.5) + 4) * 2**-0.5,
            "times_drawn": 2,
            "last_step": 3,
            "last_rate": 1.0,
            "response_length_mean": sum(lengths) / 8,
            "clip_share": 0.0,
            "dropped_at_stage": None,
            "dropped_why": None,
        }
    )
    assert (rows["b"]["dropped_at_stage"], rows["b"]["dropped_why"], rows["b"]["last_step"]) == (0, "easy", None)
    assert (rows["c"]["dropped_at_stage"], rows["c"]["last_rate"], rows["d"]["dropped_at_stage"]) == (1, 0.0, None)


def test_statistics_are_what_was_saved_and_begin_anew_with_a_checkpoint_that_has_none(tmp_path):
    statistics, again = PromptStatistics(2), PromptStatistics(2)
    statistics.add_groups([group("b", "xx"), group("a", "+-")], 4)
    statistics.save(tmp_path)
    again.add_groups([group("gone", "+")], 9)
    again.load(tmp_path)
    assert again.seen == statistics.seen
    assert again.seen["b"].last_graded == 0
    again.load(tmp_path / "none")
    assert again.seen == {}
