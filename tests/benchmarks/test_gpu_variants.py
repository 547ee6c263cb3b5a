"""The part of `benchmarks/gpu.sh` that compares settings of the head's kernels: what is wrong is not measured, a failure is a line."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from programs import forked_python

from benchmarks.gpu import exact, variants
from benchmarks.gpu.figures import Call, Figure, take
from benchmarks.gpu.journal import Journal, Line
from benchmarks.gpu.profile import profile
from benchmarks.kernels import variants as settings
from benchmarks.kernels.contests import contests
from benchmarks.kernels.memory import trace
from benchmarks.kernels.settings import blocks, rows_of_a_chunk


@pytest.fixture
def call(tmp_path):
    return Call(journal=Journal(tmp_path, "variants"), end=time.time() + 200, small=True)


def ended(call):
    return {line["name"]: line for line in call.journal.lines() if line["status"] != "started"}


@pytest.mark.slow
def test_the_part_runs_without_a_gpu(call, tmp_path, monkeypatch):
    """Without the peers, which the part `kernels` takes by the same function."""
    monkeypatch.setattr(variants, "sys", SimpleNamespace(executable=forked_python(tmp_path)))
    peers = {contest.name for contest in contests("tiny")[0]}
    take(itertools.takewhile(lambda figure: figure.name not in peers, variants.figures(call)), call)
    lines = ended(call)
    assert lines["compile"]["values"]["variants that did not compile"] == 0
    assert {line["status"] for line in lines.values()} <= {"ok", "not run"}
    for name in (*settings.KERNELS, "rows of a chunk", "block of the logits' forward", "block of the logits' backward"):
        of_kernel = [line for line in lines.values() if line.get("row", {}).get("test") == name]
        assert len(of_kernel) == 2
        assert all(line["values"]["ms"] > 0 for line in of_kernel)
    measured = {line["row"]["test"] for line in lines.values() if "peak GiB" in line.get("values", {})}
    assert measured == {"linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss"}


def test_a_variant_of_other_bits_is_not_timed(call, monkeypatch):
    good = settings.variants(settings.INTERPRETED)[0]
    bad = replace(good, tiles=replace(good.tiles, block_h=16, group=3))  # sums over H in another order
    monkeypatch.setattr(settings, "variants", lambda committed: [good, bad])
    call.journal.append(Line(name="bound", values={"TFLOP/s": 1.0, "GB/s": 1.0}))
    take([Figure(name="forward", seconds=1, run=lambda: variants.compare("forward", call, torch.device("cpu")))], call)
    lines = ended(call)
    assert lines[f"forward, {good.name}"]["status"] == "ok"
    assert (lines[f"forward, {bad.name}"]["status"], "other bits" in lines[f"forward, {bad.name}"]["reason"]) == ("failed", True)


def test_what_a_check_calls_wrong_is_not_measured(call, monkeypatch):
    monkeypatch.setitem(exact.MOST, "entropy", 0.0)
    measure = Figure(name="it", seconds=1, run=lambda: exact.if_right(call, ["tiny"], lambda: iter([Line(name="measured")])))
    with pytest.raises(exact.Unavailable, match="check tiny has not ended"):
        list(measure.run())
    take([Figure(name="check tiny", seconds=1, run=lambda: exact.check("tiny", call, torch.device("cpu"))), measure], call)
    lines = ended(call)
    assert "entropy" in lines["check tiny, 1024 columns, linear_logprob"]["reason"]
    assert (lines["it"]["status"], lines["it"]["reason"]) == ("not run", "check tiny, 1024 columns, linear_logprob is red")
    assert "measured" not in lines


def test_a_rows_place_is_noticed(call, monkeypatch):
    def moved(hidden, weight, targets):
        logprob, entropy = (hidden @ weight.T).float().log_softmax(-1).gather(1, targets[:, None])[:, 0], hidden.float().sum(1)
        return logprob + 1e-6 * torch.arange(len(logprob)), entropy

    monkeypatch.setattr(exact, "load", lambda *_: moved)
    assert "depend on its place" in next(exact.check("tiny", call, torch.device("cpu"))).reason


def test_a_wrong_gradient_of_the_policy_loss_is_noticed(call, monkeypatch):
    load = exact.load

    def louder(contestants, name, device):
        function = load(contestants, name, device)

        def with_gradient(hidden, *rest):
            hidden = hidden * 1
            hidden.register_hook(lambda gradient: 1.02 * gradient)
            return function(hidden, *rest)

        return with_gradient if contestants is exact.LINEAR_POLICY_LOSS else function

    monkeypatch.setattr(exact, "load", louder)
    of_logprob, of_policy_loss, *_ = exact.check("tiny", call, torch.device("cpu"))
    assert of_logprob.status == "ok"
    assert of_policy_loss.reason.startswith("gradient of hidden 2.")
    assert "; " not in of_policy_loss.reason


def test_a_chunk_has_as_many_rows_as_it_is_told():
    with rows_of_a_chunk(4096):
        found = trace("linear_policy_loss", 40_960)
    assert found.forward["Triton"]["zero_rows_kernel"] == 10


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_block_of_the_logits_is_held_to_float64(direction):
    choice = blocks(direction, torch.device("cpu"), small=True)
    result = list(choice.runs.values())[-1]()
    assert not choice.wrong(result)
    values = [value * 1.01 for value in result] if direction == "forward" else result * 1.01
    assert "off by" in choice.wrong(values)
    assert "off by" in choice.wrong([value * torch.nan for value in result] if direction == "forward" else result * torch.nan)


def test_the_words_of_a_profiler_become_numbers(call, tmp_path, monkeypatch):
    with pytest.raises(exact.Unavailable, match="no ncu"):
        list(profile("forward", call))
    program = tmp_path / "ncu"
    program.write_text(
        "#!/bin/sh\necho '==PROF== words'\n"
        'echo \'"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\'\n'
        'echo \'"0","forward_kernel","GPU Speed Of Light Throughput","Duration","us","9,123.45"\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (line,) = profile("forward", call)
    assert line.values == {"Duration [us]": 9123.45}
