"""The reward of docs/extend.md, in a run of its own on vLLM."""

import re

import pytest
from recipes import records, train, write_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.mark.timeout(600)  # the first run on a new machine builds the embedded model
def test_a_column_and_an_option_reach_it_and_its_weight_is_added(tmp_path):
    pytest.importorskip("vllm")
    result = train(write_recipe("A reward", tmp_path))
    assert result.returncode == 0, result.stdout[-3000:]
    steps = [record for record in records(tmp_path) if "reward/mean" in record]
    assert len(steps) == 3
    for record in steps:
        brief = record["reward/mine:brief/mean"]
        assert 0 < brief < 0.5, "most is an option"
        assert brief <= 0.5 * (1 - record["response/length_mean"] / 64) + 1e-9
        assert record["reward/math/mean"] == record["reward/accuracy"]
        assert record["reward/mean"] == pytest.approx(record["reward/math/mean"] + 0.2 * brief + 0.1 * record["reward/format/mean"])
        assert record["reward/raised"] == record["reward/killed"] == 0
    assert any(record["reward/format/mean"] > 0 for record in steps)


NASTY = """
import os, re
from pathlib import Path

CALLS, STEP = Path(__file__).with_name("calls"), 16

def reward(response, ground_truth):
    with CALLS.open("ab") as file:  # a process that is killed forgets what it counted
        file.write(b".")
        call = file.tell()
    if call == 5:
        re.match(r"(a+)+$", "a" * 40 + "b")
    if call == STEP + 5:
        os._exit(1)
    if call == 2 * STEP + 5 or call > 3 * STEP:
        raise KeyError(f"call {call}")
    return ground_truth in response
"""

SETTINGS = """
name = "nasty"
model = { path = "embedded:model", dtype = "float32" }
data = { path = "embedded:train", max_prompt_tokens = 64 }
rollout = { samples_per_prompt = 4, max_response_tokens = 32, kv_cache_mib = 64 }
reward = { function = "mine:reward", workers = 1, timeout_s = 1.0 }
trainer = { steps = 9, prompts_per_step = 4 }
"""


@pytest.mark.timeout(600)
def test_a_reward_that_hangs_then_crashes_then_raises_costs_one_response_each_until_it_raises_always(tmp_path):
    pytest.importorskip("vllm")
    (tmp_path / "mine.py").write_text(NASTY, encoding="utf-8")
    (tmp_path / "my.toml").write_text(SETTINGS, encoding="utf-8")
    result = train(tmp_path)
    assert result.returncode == 1, result.stdout[-3000:]
    lost = [(record["reward/killed"], record["reward/raised"]) for record in records(tmp_path)]
    assert lost == [(1 / 16, 0), (1 / 16, 0), (0, 1 / 16)]
    assert result.stdout.count("warning: reward.function raised at a response to prompt") == 1
    assert re.search(r'\n      File .*mine\.py", line 16, in reward\n        raise KeyError', result.stdout), "line by line"
    said = result.stdout[result.stdout.index("polaris: ") :]
    assert "reward.function raised at 16 of 16 responses" in said
    call = re.search(r"KeyError: 'call (\d+)'", said)
    assert 49 <= int(call[1]) <= 64, "responses are graded as they end"
    assert result.stdout.count('mine.py", line') == 1, "a traceback is shown once"
    assert len((tmp_path / "runs/nasty/failed_rewards.jsonl").read_text(encoding="utf-8").splitlines()) == 16
