"""The contract of engines, tried: ours keep every promise, and for each promise there is an engine that breaks it."""

import re

import pytest

from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused
from polaris.rollout import contract
from polaris.rollout.contract import PROMISES, try_engine
from polaris.rollout.engine import check_engine


def test_our_engines_keep_every_promise(kind, models):
    found = dict(try_engine(kind, models.root / "A"))
    assert list(found) == [promise.__name__ for promise in PROMISES]
    assert not {name: said for name, said in found.items() if said}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_broken_promise_is_found(promise, models):
    (found,) = try_engine(f"broken_engines:{promise.__name__.capitalize()}", models.root / "A", [promise])
    assert found[0] == promise.__name__
    assert found[1]


def test_the_command_prints_each_promise_and_fails_where_one_is_broken(models, capsys, monkeypatch):
    monkeypatch.setattr(contract, "PROMISES", PROMISES[:2])
    monkeypatch.setattr(try_engine, "__defaults__", (PROMISES[:2],))
    model = ["--model", str(models.root / "A")]
    assert contract.main(["broken_engines:Shapes", *model]) == 1
    output = capsys.readouterr().out
    assert re.search(r"^holds   order: .*\nBROKEN  shapes: .*\n        tokens, logprobs and versions are int64, float32, int32\n", output)
    assert output.endswith("1 of 2 promises hold\n")
    assert contract.main(["transformers", *model]) == 0
    assert contract.main(["broken_engines:WithoutScore", *model]) == 2
    assert "lacks score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WithoutScore", r"lacks score; polaris\.rollout\.types\.Engine says what"),
        ("WithoutOptional", r"lacks asleep_bytes, rotary_table; inherit from polaris\.rollout\.types\.Engine, where it is optional"),
        ("MadeOtherwise", r"is made as Class\(folder, model=, .* but it has got an unexpected keyword argument 'rollout'"),
        ("function", "is no class"),
        ("Nothing", "has no 'Nothing'"),
    ],
)
def test_a_class_that_is_no_engine_is_refused_by_name(name, said):
    with pytest.raises(Refused, match=rf"^rollout\.engine = 'broken_engines:{name}'.*{said}"):
        check_engine(RolloutConfig(engine=f"broken_engines:{name}"))
    assert check_engine(RolloutConfig(engine="broken_engines:Order")) == "broken_engines:Order"


def test_a_name_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(Refused, match=r"rollout\.engine = 'sglang' is not one of 'auto', 'vllm', 'transformers', nor a module:Class"):
        RolloutConfig(engine="sglang")
