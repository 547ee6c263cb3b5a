"""What kernels/README.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).parents[2] / "kernels/README.md"


def test_the_functional_snippets_run_one_after_the_other_and_agree():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text().split("## In TRL and verl")[0], re.DOTALL)
    assert len(blocks) == 4
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    first = names["loss"].detach(), names["hidden"].grad.clone(), names["head"].grad.clone()
    names["hidden"].grad = names["head"].grad = None
    exec(blocks[1], names)
    for ours, expected in zip((names["loss"], names["hidden"].grad, names["head"].grad), first, strict=True):
        torch.testing.assert_close(ours, expected)
    names["hidden"].grad = names["head"].grad = None
    exec(blocks[2], names)
    weight = 1.0 * names["mask"] / names["mask"].sum()  # the ratio of a first update is 1
    torch.testing.assert_close(names["loss"].detach(), -(weight * names["advantage"] * names["logprob"]).sum())
    assert names["hidden"].grad.count_nonzero() > 0
    exec(blocks[3], names)
    hidden, head, mask = names["hidden"], names["head"], names["mask"]
    logprob, _ = names["linear_logprob"](hidden, head, names["targets"])
    loss, _ = names["policy_loss"](logprob, names["engine_logprob"], names["advantage"], mask, float(mask.sum()))
    torch.testing.assert_close(head.grad, torch.autograd.grad(loss, head)[0])
    assert not head.main_grad.count_nonzero()
