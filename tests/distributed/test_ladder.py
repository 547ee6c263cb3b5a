"""Every rung of the memory ladder, and pairs of them, on 1, 2 and 4 ranks: gradients and metrics of the plain path on one rank."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_ranks

sys.path.insert(0, str(Path(__file__).parent))
import ladder

ALL = "adapters of rank 0", "adapters of rank 3"


@pytest.fixture(scope="module")
def plain(tiny_qwen3, tmp_path_factory):
    """What one rank finds for each rung; the first is the plain path."""
    return found_by(1, tiny_qwen3, tmp_path_factory.mktemp("ladder"))


def found_by(ranks, model, folder):
    run_ranks(ranks, ladder.__file__, model, folder / f"{ranks}.pt")
    return torch.load(folder / f"{ranks}.pt", weights_only=True)


def check(found, truth):
    for name in found:
        a, b = found[name], truth[name]
        if name == "step":
            assert a["kl"] == pytest.approx(b["kl"], rel=1e-4, abs=1e-5)
            assert np.array(a["updates"]) == pytest.approx(np.array(b["updates"]), rel=1e-4)
            assert a["statistics"] == pytest.approx(b["statistics"], rel=1e-4, abs=1e-6)
        else:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5, abs=1e-6)
            assert a["statistics"] == pytest.approx(b["statistics"], rel=1e-5, abs=1e-9)
        key = "weights" if name == "step" else "grads"
        worst = max(float((a[key][one] - truth_of_one).norm() / truth_of_one.norm()) for one, truth_of_one in b[key].items())
        print(f"{name}: {worst:.1e}")
        assert worst <= 1e-5, name


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_rung_is_the_plain_path(ranks, plain, tiny_qwen3, tmp_path):
    truth = {kind: next(found for rung, found in plain.items() if rung.startswith(kind)) for kind in ALL}
    assert [len(truth[kind]["gspo, tis, None"]["grads"]) for kind in ALL] == [25, 28]
    for rung, found in (plain if ranks == 1 else found_by(ranks, tiny_qwen3, tmp_path)).items():
        print(ranks, rung)
        check(found, truth[rung[: len(ALL[0])]])
