"""A user's own hooks: what is refused at start, what they add to records, and what becomes of an exception."""

import sys
from types import SimpleNamespace

import pytest

from polaris.checkpoint.changes import RunProgress, find_changes
from polaris.config.schema import RunConfig
from polaris.errors import Refused, RunFailed
from polaris.observe.hook import METHODS
from polaris.observe.metrics import MetricsFile, read_records
from polaris.run.hooks import Hooks, check_hooks, load_hooks
from polaris.run.loop import Recorder


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module `my_hooks` and gives the placed names of classes in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield lambda text, *names: [(tmp_path / "my_hooks.py").write_text(text), *(f"{tmp_path}:my_hooks:{name}" for name in names)][1:]
    sys.modules.pop("my_hooks", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def Hook(): pass", r"'my_hooks:Hook' is no class; write a class with methods such as on_step"),
        ("class Hook:\n def on_steps(self, record, groups): pass", r"has on_steps, which nothing calls; did you mean 'on_step'\?"),
        ("class Hook:\n def step(self): pass", r"hears of nothing; give it one of on_start, on_step, on_evaluate, on_checkpoint, on_stop"),
        ("class Hook:\n def on_step(self, record): pass", r"is called as on_step\(self, record, groups\), but it has too many positional"),
        ("class Other: pass", r"has no 'Hook'"),
    ],
)
def test_what_could_not_be_called_is_refused_at_start(mine, text, said):
    with pytest.raises(Refused, match=rf"^run\.hooks.*{said}"):
        check_hooks(mine(text, "Hook"))


def test_every_method_is_called_with_its_arguments_and_may_be_left_out(mine, tmp_path):
    body = "".join(f"\n def {method}(self, *arguments): HEARD.append(({method!r}, len(arguments)))" for method in METHODS)
    names = mine(f"HEARD = []\nclass Hook:{body}\nclass Idle:\n def on_stop(self, why): HEARD.append(why)", "Hook", "Idle")
    check_hooks(names)
    hooks = Hooks(load_hooks(names))
    hooks.on_start(None, tmp_path, 4)
    assert hooks.on_step({"step": 4}, []) == hooks.on_evaluate({"step": 4}) == {}
    hooks.on_checkpoint(4, tmp_path)
    hooks.on_stop("done")
    heard = [("on_start", 3), ("on_step", 2), ("on_evaluate", 1), ("on_checkpoint", 2), ("on_stop", 1), "done"]
    assert heard == sys.modules["my_hooks"].HEARD


def test_returned_numbers_are_added_and_the_record_is_for_reading(mine):
    text = "import numpy\nclass A:\n def on_step(self, record, groups): return {'x': numpy.float32(0.5), 'groups': len(groups)}\n"
    text += "class B:\n def on_step(self, record, groups): return {'x': 1}\n"
    text += "class C:\n def on_step(self, record, groups): record['step'] = 9\n"
    a, b, c = mine(text, "A", "B", "C")
    record = {"step": 1}
    assert Hooks(load_hooks([a])).on_step(record, [None, None]) == {"hook/x": 0.5, "hook/groups": 2.0}
    with pytest.raises(RunFailed, match="two hooks return 'x' from on_step"):
        Hooks(load_hooks([a, b])).on_step(record, [])
    with pytest.raises(RunFailed, match="does not support item assignment"):
        Hooks(load_hooks([c])).on_step(record, [])
    assert record == {"step": 1}


def test_an_exception_ends_the_run_with_its_traceback_and_name(mine):
    names = mine("class Hook:\n def on_step(self, record, groups):\n  return 1 / (record['step'] - 1)", "Hook")
    with pytest.raises(RunFailed, match=r"run\.hooks = 'my_hooks:Hook': on_step failed; mend it, and the same command goes on") as failed:
        Hooks(load_hooks(names)).on_step({"step": 1}, [])
    assert 'my_hooks.py", line 3, in on_step' in str(failed.value)
    assert str(failed.value).endswith("ZeroDivisionError: division by zero")
    assert "doors.py" not in str(failed.value)
    made = mine("class Hook:\n def __init__(self): raise KeyError('x')\n def on_stop(self, why): pass", "Hook")
    with pytest.raises(RunFailed, match="making it failed"):
        load_hooks(made)


class Heard:
    """A tracker that remembers."""

    def __init__(self):
        self.records, self.why = [], []

    def on_step(self, record, groups):
        self.records.append(record)

    def on_stop(self, why):
        self.why.append(why)


def test_trackers_hear_last_with_what_hooks_add_and_all_hear_of_a_failure(mine, tmp_path):
    text = "class Hook:\n def on_step(self, record, groups): return {'x': 2} if record['step'] < 2 else 1 / 0\n"
    text += " def on_stop(self, why): raise ValueError(why)"
    ignore, warned, tracker = SimpleNamespace(step=lambda record: None, look=lambda record: None), [], Heard()
    recorder = Recorder(
        active=True,
        console=SimpleNamespace(step=ignore.step, warning=warned.append),
        alarms=ignore,
        metrics=MetricsFile(tmp_path / "metrics.jsonl"),
        rollouts=SimpleNamespace(write=lambda step, samples: None),
        hooks=Hooks(load_hooks(mine(text, "Hook"))),
        trackers=[tracker],
    )
    recorder.step({"step": 1}, [], [])
    with pytest.raises(RunFailed, match="on_step failed"), recorder.heard_failure():
        recorder.step({"step": 2}, [], [])
    assert read_records(tmp_path / "metrics.jsonl") == tracker.records == [{"step": 1, "hook/x": 2.0}]
    assert tracker.why[0].startswith("RunFailed: run.hooks = 'my_hooks:Hook': on_step failed")
    assert "on_stop failed" in warned[0], "the first failure is the cause, and the second is not lost"


def test_a_mended_hook_goes_on_without_change():
    before, after = ({"code": {"run.hooks": [digest], "rollout.episode": [digest]}} for digest in "ab")
    found = find_changes(RunConfig(), RunConfig(), RunProgress(step=1, closed=0), before, after)
    assert found.altering == ("rollout.episode: the code behind it was edited",)
    assert find_changes(RunConfig(), RunConfig(), RunProgress(step=1, closed=0), before, before).altering == ()
