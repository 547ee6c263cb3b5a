"""Options of `polaris train` that are no fields of the configuration."""

from pathlib import Path

import pytest

from polaris.commands.train_options import source_of, start_options
from polaris.config.load import QUICKSTART
from polaris.errors import Refused


def test_flags_are_told_from_overrides():
    flags, rest = start_options(["my.toml", "--from", "runs/x@step-40", "--seed=1", "--change", "--with-optimizer", "--name", "y"])
    assert flags == {"fresh": False, "change": True, "with_optimizer": True, "source": "runs/x@step-40"}
    assert rest == ["my.toml", "--seed=1", "--name", "y"]
    assert start_options(["--from=runs/x"])[0]["source"] == "runs/x"


@pytest.mark.parametrize("arguments", [["--from"], ["--from", "--change"], ["--from="]])
def test_a_source_without_a_name_is_refused(arguments):
    with pytest.raises(Refused, match="--from has no value; write --from RUN"):
        start_options(arguments)


@pytest.mark.parametrize("name", ["--fresh", "--change", "--with-optimizer"])
def test_a_flag_with_a_value_is_refused(name):
    with pytest.raises(Refused, match=f"{name} takes no value; write {name} alone"):
        start_options([f"{name}=true"])


def test_a_restart_by_torchrun_resumes(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert start_options(["--fresh"])[0]["fresh"] is False
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert start_options(["--fresh"])[0]["fresh"] is True


def test_what_is_read_issource_of():
    built_in = f"{QUICKSTART}, the built-in quickstart, since no CONFIG is given"
    assert source_of(None, QUICKSTART, ["--seed=1"]) == built_in
    unsuited = f"{built_in}; its other settings suit its own tiny model and problems: docs/own_model.md shows a CONFIG for yours"
    assert source_of(None, QUICKSTART, ["--data.path", "x"]) == source_of(None, QUICKSTART, ["--model.path=x"]) == unsuited
    assert source_of(Path("my.toml"), QUICKSTART, ["--data.path=x"]) == "my.toml"
