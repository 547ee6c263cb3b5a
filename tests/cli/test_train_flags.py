"""Options of `polaris train` that are no fields of the configuration."""

import pytest

from polaris.errors import Refused
from polaris.train import _flags


def test_flags_are_told_from_overrides():
    flags, rest = _flags(["my.toml", "--from", "runs/x@step-40", "--seed=1", "--change", "--with-optimizer", "--name", "y"])
    assert flags == {"fresh": False, "change": True, "with_optimizer": True, "source": "runs/x@step-40"}
    assert rest == ["my.toml", "--seed=1", "--name", "y"]
    assert _flags(["--from=runs/x"])[0]["source"] == "runs/x"


@pytest.mark.parametrize("arguments", [["--from"], ["--from", "--change"], ["--from="]])
def test_a_source_without_a_name_is_refused(arguments):
    with pytest.raises(Refused, match="--from has no value; write --from RUN"):
        _flags(arguments)


def test_a_restart_by_torchrun_resumes(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _flags(["--fresh"])[0]["fresh"] is False
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert _flags(["--fresh"])[0]["fresh"] is True
