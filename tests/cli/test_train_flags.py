"""Options of `polaris train` that are no fields of the configuration."""

from pathlib import Path

import pytest

from polaris.config.load import QUICKSTART
from polaris.errors import Refused
from polaris.train import _flags, _named


def test_flags_are_told_from_overrides():
    flags, rest = _flags(["my.toml", "--from", "runs/x@step-40", "--seed=1", "--change", "--with-optimizer", "--name", "y"])
    assert flags == {"fresh": False, "change": True, "with_optimizer": True, "source": "runs/x@step-40"}
    assert rest == ["my.toml", "--seed=1", "--name", "y"]
    assert _flags(["--from=runs/x"])[0]["source"] == "runs/x"


@pytest.mark.parametrize("arguments", [["--from"], ["--from", "--change"], ["--from="]])
def test_a_source_without_a_name_is_refused(arguments):
    with pytest.raises(Refused, match="--from has no value; write --from RUN"):
        _flags(arguments)


@pytest.mark.parametrize("name", ["--fresh", "--change", "--with-optimizer"])
def test_a_flag_with_a_value_is_refused(name):
    with pytest.raises(Refused, match=f"{name} takes no value; write {name} alone"):
        _flags([f"{name}=true"])


def test_a_restart_by_torchrun_resumes(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _flags(["--fresh"])[0]["fresh"] is False
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert _flags(["--fresh"])[0]["fresh"] is True


def test_what_is_read_is_named():
    built_in = f"{QUICKSTART}, the built-in quickstart, since no CONFIG is given"
    assert _named(None, QUICKSTART, ["--seed=1"]) == built_in
    unsuited = f"{built_in}; its other settings suit its own tiny model and problems: docs/own_model.md shows a CONFIG for yours"
    assert _named(None, QUICKSTART, ["--data.path", "x"]) == _named(None, QUICKSTART, ["--model.path=x"]) == unsuited
    assert _named(Path("my.toml"), QUICKSTART, ["--data.path=x"]) == "my.toml"
