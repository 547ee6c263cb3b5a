"""Rewards of a user's own in real processes: what they get, what they may not do, and how several are added up."""

import json
import re
import time
from types import SimpleNamespace

import pytest

from polaris.checkpoint.changes import RunProgress, find_changes
from polaris.config.reward import RewardConfig
from polaris.config.schema import RunConfig
from polaris.doors import placed
from polaris.errors import Refused, RunFailed
from polaris.reward import host, process
from polaris.reward.protocol import RewardItem
from polaris.reward.rewards import Rewards, check_columns, checked_rewards, identity, ungradable
from polaris.run.record import reward_facts, reward_parts
from polaris.sampling.guards import GradingFailed, show_error, stop_if_grading_fails
from polaris.types import Group, Prompt, ScoredRollout, Verdict

MINE = """
import ctypes, os, re, sys
from polaris.types import Verdict

LOADED = os.getpid()

def nasty(response, ground_truth):
    match response:
        case "regex": re.match(r"(a+)+$", "a" * 40 + "b")
        case "power": 7 ** (10**9)
        case "exit": os._exit(0)
        case "leave": sys.exit(0)
        case "segv": ctypes.string_at(0)
        case "memory": bytearray(1 << 40)
        case "raise": raise KeyError("no such answer")
        case "long": raise ValueError("x" * 5_000_000)
        case "fork": os.fork()
        case "nan": return float("nan")
        case "none": return None
        case "text": return "1"
        case "print": print("x" * 3_000_000)
        case "read": return sys.stdin.read() == ""
        case "environment": return os.environ["MY_KEY"] == "secret" and LOADED == os.getpid()
    return True

def given(response, ground_truth, prompt, messages, finish_reason, length, limit, level, most=3, **row):
    want = ("r", ("3", 4), "<user>", [{"role": "user", "content": "q"}], "length", 7, 9, "hard", 5)
    right = (response, ground_truth, prompt, messages, finish_reason, length, limit, level, most) == want
    return right and row == {"problem": "q"}

def brief(response, problem):
    return 0.25

class Words:
    def __init__(self, most=4):
        self.most = most
    def check(self, ground_truth):
        return None if ground_truth != "" else "nothing to say"
    def score(self, items):
        assert len(items) == 1
        count = len(items[0].response.split())
        return [Verdict("correct", "few words", reward=1.0) if count <= self.most else Verdict("wrong", reward=-1.0)]

made = Words(1)
def decorated(function):
    return lambda *args, **kwargs: function(*args, **kwargs)

@decorated
def hidden(response, ground_truth, problem, **row):
    return (response, ground_truth, problem) == ("r", "3", "q")

number = 3
async def later(response): return 1
def listed(response, /): return 1
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    return lambda name: placed(f"mine:{name}", tmp_path)


def item(response, truth="3", **changes):
    return RewardItem(**({"response": response, "ground_truth": truth, "length": 7, "limit": 9} | changes))


def score(config, items):
    with Rewards(config, require_thinking=False) as rewards:
        rewards.wait()
        return rewards.score(items)


def test_what_hangs_crashes_or_raises_costs_one_response_and_no_other(mine, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    lost = {"regex": "timeout", "power": "timeout"} | dict.fromkeys(("exit", "segv"), "crashed")
    lost |= dict.fromkeys(("memory", "raise", "leave", "long", "nan", "none", "text"), "raised")
    texts = [text for bad in (*lost, "fork", "print", "read", "environment") for text in ("fine", bad)]
    start = time.monotonic()
    found = score(RewardConfig(function=mine("nasty"), timeout_s=1.0, workers=2), [item(text) for text in texts])
    assert time.monotonic() - start < 30
    for text, verdict in zip(texts, found, strict=True):
        assert (verdict.kind, verdict.reason) == (("ungradable", lost[text]) if text in lost else ("correct", "")), text
        assert verdict.lost == (text in lost)
        assert verdict.reward == (text not in lost)
    trace = {text: verdict.trace for text, verdict in zip(texts, found, strict=True)}
    assert 'mine.py", line' in trace["raise"]
    assert trace["raise"].endswith("KeyError: 'no such answer'\n")
    assert "reward.memory_mib" in trace["memory"]
    assert "the reward nan is no finite number" in trace["nan"]
    assert trace["leave"].endswith("SystemExit: 0\n")
    assert len(trace["long"]) < 10_000


@pytest.mark.parametrize(
    ("scored", "found"),
    [
        ([Verdict("right")], "there is no verdict 'right'"),
        (1.0, "score returned float"),
        ([], "score returned 0 results"),
        ((one for one in [1.0]), {"number": 1.0}),
        ([Verdict("correct", "x", 3, reward=1.0)], {"verdict": {"kind": "correct", "reason": "x", "answer": "3", "reward": 1.0}}),
    ],
)
def test_what_score_returns_is_checked(scored, found):
    assert _results(scored) == found


def _results(scored):
    try:
        return host._result(scored)
    except ValueError as error:
        return re.split("[;,]| for ", str(error))[0]


def test_a_function_behind_a_decorator_gets_everything(mine):
    assert score(RewardConfig(function=mine("hidden"), workers=1), [item("r", row={"problem": "q"})])[0].kind == "correct"


def test_a_function_gets_what_its_signature_takes(mine):
    row = {"problem": "q", "level": "hard", "response": "of the set", "ground_truth": "of the set", "limit": 1}
    given = item("r", ("3", 4), prompt="<user>", messages=({"role": "user", "content": "q"},), finish_reason="length", row=row)
    del row["limit"]
    (verdict,) = score(RewardConfig(function=mine("given"), options={"mine:given": {"most": 5}}, workers=1), [given])
    assert verdict.kind == "correct", verdict


def test_the_weighted_sum_is_earned_and_the_first_decides(mine):
    weights = {"math": 2.0, "format": 0.5, mine("Words"): 1.0, "length": 0.1}
    options = {"format": {"pattern": r".*\\boxed\{.*\}"}, "length": {"buffer": 4}, "mine:Words": {"most": 2}}
    found = score(RewardConfig(function=weights, options=options, workers=1), [item(r"\boxed{3}"), item("a b c"), item(r"\boxed{4}")])
    assert [verdict.kind for verdict in found] == ["correct", "no_answer", "wrong"]
    assert [verdict.parts for verdict in found] == [(1, 1, 1, -0.5), (0, 0, -1, -0.5), (0, 1, 1, -0.5)]
    assert [verdict.reward for verdict in found] == pytest.approx([3.45, -1.05, 1.45])


def test_math_alone_gives_the_graders_own_verdicts():
    assert score(RewardConfig(workers=1), [item(r"\boxed{3}"), item(r"\boxed{x+1}", "1+x"), item("3")]) == [
        Verdict("correct", "same text", "3", reward=1.0),
        Verdict("correct", "equal", "x+1", reward=1.0),
        Verdict("no_answer", "no \\boxed{}"),
    ]


def test_a_regular_expression_of_the_users_cannot_hang_the_trainer():
    config = RewardConfig(function="exact", answer=r"((?:a+)+)$", timeout_s=1.0, workers=1)
    found = score(config, [item("a" * 40 + "b"), item("baa", "aa")])
    assert [(verdict.kind, verdict.reason) for verdict in found] == [("ungradable", "timeout"), ("correct", "same text")]


def test_numbers_need_a_bound_for_solved(mine):
    with pytest.raises(RunFailed, match=r"mine:brief returned 0\.25.*reward\.success_above"):
        score(RewardConfig(function=mine("brief"), workers=1), [item("x", row={"problem": "q"})])
    with_bound = RewardConfig(function=mine("brief"), success_above=0.2, workers=1)
    assert score(with_bound, [item("x", row={"problem": "q"})]) == [Verdict("correct", reward=0.25, parts=(0.25,))]
    with pytest.raises(Refused, match=r"reward\.success_above has no effect"):
        checked_rewards(RewardConfig(success_above=0.5))


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("maths", {}, r"'maths' is unknown; did you mean 'math'"),
        ("own", {}, r"there is math, exact, multiple_choice, format, length, reasoning_gym, or module:name"),
        ("format", {}, r"reward\.options\.format: missing a required .*'pattern'"),
        ("length", {"length": {"bufer": 3}}, r"reward\.options\.length\.bufer is unknown; length takes buffer, limit, target"),
        ("mine:nosty", {}, r"has no 'nosty'; did you mean 'nasty'"),
        ("mine:Words", {"mine:Words": {"least": 1}}, r'reward\.options\."mine:Words"\.least is unknown; mine:Words takes most'),
        ("mine:brief", {"mine:brief": {"x": 1}}, r"x is unknown; mine:brief takes problem"),
        ("mine:made", {"mine:made": {"most": 1}}, r"no effect on an object"),
        ("mine:number", {}, r"is int; name a function"),
        ("mine:Verdict", {}, r"class without score"),
        ("mine:later", {}, r"a plain function"),
        ("mine:listed", {}, r"a plain function"),
    ],
)
def test_what_is_no_reward_is_refused_at_start(mine, function, options, message):
    own = mine(function.partition(":")[2]) if ":" in function else function
    with pytest.raises(Refused, match=message):
        checked_rewards(RewardConfig(function=own, options=options))


def test_sections_are_refused_where_names_do_not_fit():
    with pytest.raises(Refused, match=r"reward\.options\.formt belongs to no reward.*did you mean 'format'"):
        RewardConfig(function={"math": 1.0, "format": 0.1}, options={"formt": {"pattern": "x"}})
    with pytest.raises(Refused, match=r"names no reward"):
        RewardConfig(function={})
    with pytest.raises(Refused, match=r"reward\.answer = '\('"):
        checked_rewards(RewardConfig(answer="("))


def test_rows_are_checked_for_golds_and_columns(mine):
    rewards = checked_rewards(RewardConfig(function={mine("Words"): 1.0, mine("brief"): 1.0}))
    assert ungradable(rewards, "") == "nothing to say"
    assert ungradable(rewards, "a sentence that no grader compares.") is None
    check_columns(rewards, [({"problem": 1}, "set:1")])
    with pytest.raises(Refused, match=r"takes 'problem', which is no column of set:2 \(question\).*finish_reason"):
        check_columns(rewards, [({"problem": 1}, "set:1"), ({"question": 1}, "set:2")])


def test_a_module_that_does_not_load_in_time_is_an_error_at_start(mine, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(process, "START_LIMIT_S", 1.0)
    (tmp_path / "slow.py").write_text(
        "import os, time\nif os.environ.get('SLOW'): time.sleep(600)\ndef reward(response): return 1\n", encoding="utf-8"
    )
    function = placed("slow:reward", tmp_path)
    checked_rewards(RewardConfig(function=function))
    monkeypatch.setenv("SLOW", "1")
    with (
        pytest.raises(RunFailed, match=r"cannot start[\s\S]*not ready after 1 s[\s\S]*raise reward\.memory_mib = 1024"),
        Rewards(RewardConfig(function=function, workers=1), require_thinking=False) as rewards,
    ):
        rewards.wait(lambda: waited.append(1.0))
    assert waited, "its caller may say that it is at work"


def test_a_file_edited_while_the_run_goes_on_is_not_mixed_in(mine, tmp_path):
    config = RewardConfig(function=mine("nasty"), workers=1)
    with Rewards(config, require_thinking=False) as rewards:
        assert rewards.score([item("fine")])[0].kind == "correct"
        (tmp_path / "mine.py").write_text(MINE.replace("return True", "return False"), encoding="utf-8")
        assert rewards.score([item("exit")])[0].reason == "crashed"
        with pytest.raises(RunFailed, match="mine:nasty was edited while the run goes on"):
            rewards.score([item("fine")])


def test_results_that_depend_on_the_reward_say_which(mine, tmp_path):
    assert identity(RewardConfig()) == {}
    before = identity(RewardConfig(function=mine("nasty")))
    assert before["reward"]["function"] == "mine:nasty"
    (tmp_path / "mine.py").write_text(f"{MINE}\n", encoding="utf-8")
    assert identity(RewardConfig(function=mine("nasty"))) != before


def group(*verdicts):
    rollout = SimpleNamespace(finish_reason="stop", prompt_id="p7")
    prompt = Prompt(id="p7", text="", tokens=(1,), ground_truth="3", source="set:7")
    return Group(prompt=prompt, rollouts=tuple(ScoredRollout(rollout=rollout, text="said", verdict=one) for one in verdicts))


RAISED = Verdict("ungradable", "raised", trace="Traceback of mine.py\nKeyError: 3\n")


def test_one_error_in_a_hundred_is_shown_once_and_more_stop_the_run(tmp_path):
    fine = [Verdict("correct", reward=1.0, parts=(1.0, 0.5))] * 98
    stop_if_grading_fails([group(RAISED, *fine)], tmp_path, writes=True)
    with pytest.raises(GradingFailed, match=r"raised at 2 of 100 responses.*prompt p7[\s\S]*KeyError: 3"):
        stop_if_grading_fails([group(RAISED, RAISED, *fine)], tmp_path, writes=True)
    lines = [json.loads(line) for line in (tmp_path / "failed_rewards.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt"], line["response"], line["traceback"]) for line in lines] == [("p7", "said", RAISED.trace)] * 2
    said = []
    context = SimpleNamespace(grader=SimpleNamespace(has_raised=False), console=SimpleNamespace(warning=said.append))
    for _ in range(3):
        show_error(context, [("p6", fine[0]), ("p7", RAISED)])
    assert len(said) == 1
    assert "prompt p7" in said[0]
    assert said[0].endswith("KeyError: 3")


def test_each_reward_is_a_metric_over_what_was_graded():
    right, wrong = Verdict("correct", reward=1.1, parts=(1.0, 0.5)), Verdict("wrong", reward=-0.1, parts=(0.0, -0.5))
    scored = group(right, wrong, wrong, RAISED, Verdict("ungradable", "timeout")).rollouts
    facts = reward_facts(scored) | reward_parts(scored, ("math", "mine:reward"), "reward")
    assert facts["reward/math/mean"] == pytest.approx(1 / 3)
    assert facts["reward/mine:reward/mean"] == pytest.approx(-0.5 / 3)
    assert (facts["reward/raised"], facts["reward/killed"], facts["reward/accuracy"]) == (0.2, 0.2, 0.2)
    assert reward_parts(scored, (), "reward") == {}


def test_another_first_reward_is_a_change_of_a_resumed_run():
    configs = [RunConfig(reward=RewardConfig(function=table)) for table in ({"math": 1.0, "length": 0.1}, {"length": 0.1, "math": 1.0})]
    found = find_changes(*configs, RunProgress(step=1, closed=0), {}, {})
    assert found.altering == ("reward.function: length says what is solved, no longer math",)
    assert find_changes(configs[0], configs[0], RunProgress(step=1, closed=0), {}, {}).altering == ()
