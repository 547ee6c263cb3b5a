"""`linear_logprob` on ranks that each hold some rows of the head: the program that the tests of it start, and its cases.

Four processes make up one group, and the last two of them another. They are forked from one that has imported everything, which saves
seconds in each.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from polaris_kernels import linear_logprob, linear_policy_loss

PROCESSES, ROWS, SIZE = 4, 29, 24
FUNCTION = "polaris_kernels.linear_logprob.function"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows of the head on each rank, and what is special."""

    ranks: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    bias: bool = False
    softcap: float | None = None
    logits_dtype: torch.dtype | None = None
    excluded: int | None = None
    """A rank all of whose tokens have a bias of minus infinity."""
    targets_on: int | None = None
    """The only rank that holds targets."""
    ignore_index: int = -100
    frozen: bool = False
    with_entropy: bool = True
    scale: float = 1.0
    """Of the incoming gradients."""
    main_grad: bool = False
    """Whether the gradient of the weight is added to a tensor of float32."""

    def inputs(self) -> dict[str, torch.Tensor]:
        """Hidden states, whole head, targets in the whole vocabulary, temperatures and incoming gradients, the same in every process.

        Two rows in seven are ignored or have no gradient.
        """
        generator = torch.Generator().manual_seed(sum(self.ranks))
        vocabulary, bounds = sum(self.ranks), torch.tensor([0, *self.ranks]).cumsum(0)
        first, last = (0, vocabulary) if self.targets_on is None else bounds[self.targets_on : self.targets_on + 2].tolist()
        values = {
            # In quarters, so that float32 has the exact logits, which are rounded the same way as those of float64.
            "hidden": (4 * torch.randn(ROWS, SIZE, generator=generator)).round().div(4).to(self.dtype),
            "weight": (4 * torch.randn(vocabulary, SIZE, generator=generator)).round().div(4).to(self.dtype),
            "bias": torch.randn(vocabulary, generator=generator).to(self.dtype),
            "targets": torch.randint(first, last, (ROWS,), generator=generator),
            "temperature": torch.empty(ROWS).uniform_(0.6, 1.4, generator=generator),
            "coefficients": self.scale * torch.randn(2, ROWS, generator=generator),
        }
        if self.excluded is not None:
            values["bias"][bounds[self.excluded] : bounds[self.excluded + 1]] = -torch.inf
        values["targets"][::7] = self.ignore_index
        values["coefficients"][:, 1::7] = 0
        return values

    @property
    def processes(self) -> range:
        """Those that are the ranks."""
        return range(PROCESSES - len(self.ranks), PROCESSES)

    def run(self, group: dist.ProcessGroup) -> dict[str, torch.Tensor]:
        """Results and gradients on this rank."""
        values = self.inputs()
        values["weight"], values["bias"] = (values[name].split(self.ranks)[group.rank()] for name in ("weight", "bias"))
        names = ["hidden", *(["weight", "bias"] if self.bias else ["weight"])][: 1 if self.frozen else None]
        leaves = [values[name].requires_grad_() for name in names]
        main_grad = torch.zeros_like(values["weight"], dtype=torch.float32) if self.main_grad else None
        logprob, entropy = linear_logprob(
            values["hidden"],
            values["weight"],
            values["targets"],
            temperature=values["temperature"],
            bias=values["bias"] if self.bias else None,
            softcap=self.softcap,
            logits_dtype=self.logits_dtype,
            return_entropy=self.with_entropy,
            ignore_index=self.ignore_index,
            group=group,
            main_grad=main_grad,
        )
        loss = (values["coefficients"][0] * logprob).sum()
        results = {"logprob": logprob}
        if entropy is not None:
            loss = loss + (values["coefficients"][1] * entropy).sum()
            results["entropy"] = entropy
        gradients = dict(zip(names, torch.autograd.grad(loss, leaves, allow_unused=self.main_grad), strict=True))
        if main_grad is not None:
            assert gradients["weight"] is None
            gradients["weight"] = main_grad
        return {name: tensor.detach() for name, tensor in (results | gradients).items()}


CASES = {
    "even": Case(ranks=(32, 32), bias=True),
    "uneven": Case(ranks=(95, 8), bias=True),
    "four": Case(ranks=(40, 40, 40, 11), bias=True, softcap=7.0),
    "a rank without rows": Case(ranks=(20, 20, 13, 0), bias=True),
    "targets on one rank": Case(ranks=(30, 30, 30, 30), targets_on=2),
    "an excluded rank": Case(ranks=(30, 25), bias=True, excluded=0, targets_on=1),
    "two tokens": Case(ranks=(1, 1), bias=True),
    "bfloat16": Case(ranks=(70, 61), dtype=torch.bfloat16, bias=True),
    "float16": Case(ranks=(50, 50, 50, 20), dtype=torch.float16, scale=1e-3),
    "float16 capped": Case(ranks=(50, 33), dtype=torch.float16, softcap=5.0),
    "rounded logits": Case(ranks=(40, 60), logits_dtype=torch.bfloat16),
    "a token as ignore_index": Case(ranks=(9, 9, 9, 9), ignore_index=18),
    "frozen": Case(ranks=(70, 61), frozen=True),
    "no entropy": Case(ranks=(70, 61), with_entropy=False),
    "main_grad": Case(ranks=(70, 61), dtype=torch.bfloat16, main_grad=True),
    "main_grad on a rank without rows": Case(ranks=(40, 0, 23, 30), main_grad=True),
    "no gradient": Case(ranks=(30, 31), bias=True, scale=0.0),
}


LOSS = {"kind": "dapo", "correction": "tis", "kl": 0.05}


def tokens(values: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Log-probs of the sampler, advantages and mask of the rows of a case; and a denominator."""
    noise, advantage = values["coefficients"].to(values["hidden"].dtype)
    return -4 - noise, advantage, (torch.arange(ROWS) % 5 != 0) & (values["targets"] != -100), torch.tensor(20.0)


def policy_loss_on(group: dist.ProcessGroup, main_grad: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Loss and gradients of `linear_policy_loss` for the case "four"; that of the weight may be added to `main_grad`."""
    values = CASES["four"].inputs()
    reference = -4 + values["coefficients"][1]
    leaves = [values["hidden"], values["weight"].split(CASES["four"].ranks)[group.rank()]]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    options = {
        "temperature": values["temperature"],
        "softcap": CASES["four"].softcap,
        "reference_logprob": reference,
        "group": group,
        "main_grad": main_grad,
    }
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loss, totals, _, entropy = linear_policy_loss(*leaves, values["targets"], *tokens(values), **options, **LOSS)
    assert [str(w.message) for w in said if w.category is UserWarning] == [
        "the head is divided among ranks: computed by linear_logprob and policy_loss instead"
    ]
    hidden, weight = torch.autograd.grad(loss, leaves, allow_unused=main_grad is not None)
    if main_grad is not None:
        assert weight is None
        weight = main_grad
    return {"loss": loss.detach(), "entropy": entropy, "hidden": hidden, "weight": weight, **totals}


def refused(group: dist.ProcessGroup) -> dict[str, str]:
    """What calls that cannot work say."""
    hidden, weight, targets = torch.ones(5, 3), torch.ones(4, 3), torch.tensor([0, 1, 2, 3, 4 * group.size()])
    said = {}
    for name, rows in (("target outside", 5), ("hidden states of other lengths", 2 + group.rank())):
        try:
            linear_logprob(hidden[:rows], weight, targets[:rows], group=group)
        except ValueError as error:
            said[name] = str(error)
    return said


def serve_by_kernels() -> None:
    """Triton's interpreter serves every dtype from here on."""
    from polaris_kernels.tiles import Tiles

    tiles = Tiles(block_t=32, block_v=32, block_h=64, group=2, processors=3, warps=4, stages=2, tma=False, merge=32)
    function = importlib.import_module(FUNCTION)
    function.uses_triton = lambda tensor: True
    function.tiles_for = lambda hidden, head: tiles


def on_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES, timeout=timedelta(seconds=100))
    groups = {2: dist.new_group([2, 3]), 4: dist.group.WORLD}
    results = {}
    for kernels in (False, True):
        if kernels:
            serve_by_kernels()
        for name, case in CASES.items():
            if rank in case.processes:
                results[name, kernels] = case.run(groups[len(case.ranks)])
        if rank in CASES["four"].processes:
            results["policy loss", kernels] = policy_loss_on(groups[4])
            main_grad = torch.zeros(CASES["four"].ranks[rank], SIZE)
            results["policy loss with main_grad", kernels] = policy_loss_on(groups[4], main_grad)
    results["refused"] = refused(groups[4])
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    importlib.import_module("conftest")  # imports the kernels for Triton's interpreter
    linear_logprob(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0]))  # the first call imports more
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=on_rank, args=(rank, Path(sys.argv[1]))) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))
