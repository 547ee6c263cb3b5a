"""Errors of `linear_logprob` against float64 on ranks that each hold some rows of the head, beside those of one rank with all of them.

`python -m benchmarks.kernels.error_on_ranks [ROWS [HEAD ...]]`, in plain torch on gloo ranks of one processor.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import tempfile

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.kernels.errors import FACTS, errors, evaluate, truth
from benchmarks.kernels.heads import draw
from benchmarks.kernels.peers import TEMPERATURE
from polaris_kernels import linear_logprob

HEAD = "qwen2.5-0.5b"
SHARES = ((1.0,), (0.5, 0.5), (0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.2))
"""Of the vocabulary on each rank, of which the last has what is left over as well; one rank needs no group."""
Inputs = tuple[Tensor, Tensor, Tensor]


def shards(weight: Tensor, shares: tuple[float, ...]) -> tuple[Tensor, ...]:
    sizes = [int(share * len(weight)) for share in shares[:-1]]
    return weight.split([*sizes, len(weight) - sum(sizes)])


def on_rank(rank: int, inputs: Inputs, shares: tuple[float, ...], folder: str) -> None:
    """Leave what this rank finds in `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares))
    hidden, weight, targets = inputs
    group = dist.group.WORLD if len(shares) > 1 else None
    score = functools.partial(linear_logprob, temperature=TEMPERATURE, group=group)
    torch.save(evaluate(score, (hidden, shards(weight, shares)[rank], targets), True), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def found_on_ranks(inputs: Inputs, shares: tuple[float, ...]) -> list[Tensor]:
    """Log-probs, entropies, gradients of hidden and of the whole weight. Refuses ranks whose bits differ."""
    fork = multiprocessing.get_context("fork")  # the ranks share the head's memory
    with tempfile.TemporaryDirectory() as folder:
        processes = [fork.Process(target=on_rank, args=(rank, inputs, shares, folder)) for rank in range(len(shares))]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        ranks = [torch.load(f"{folder}/{rank}.pt") for rank in range(len(shares))]
    assert all(torch.equal(a, b) for other in ranks for a, b in zip(ranks[0][:3], other[:3], strict=True)), "ranks differ"
    return [*ranks[0][:3], torch.cat([rank[3] for rank in ranks])]


def main(rows: int, heads: list[str]) -> None:
    torch.set_num_threads(1)
    print(f"{rows} rows, temperature {TEMPERATURE}, torch {torch.__version__}, gloo.\n")
    print("| head | dtype | of the vocabulary on each rank | " + " | ".join(FACTS) + " |\n|" + "---|" * (3 + len(FACTS)))
    for head in heads:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            inputs = draw(head, rows, torch.device("cpu"), dtype)
            found = {shares: found_on_ranks(inputs, shares) for shares in SHARES}
            exact = evaluate_in_float64(inputs)
            for shares, results in found.items():
                cells = " | ".join(f"{error:.1e}" for error in errors(results, exact))
                print(f"| {head} | {str(dtype)[6:]} | {', '.join(f'{share:.0%}' for share in shares)} | {cells} |", flush=True)


def evaluate_in_float64(inputs: Inputs) -> list[Tensor]:
    """In a process of its own: one that has run a backward may not be forked."""
    exact = (inputs[0].detach().double(), inputs[1].detach().double(), inputs[2])
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("fork").Process(target=lambda: torch.save(evaluate(truth, exact, True), f"{folder}/truth.pt"))
        process.start()
        process.join()
        return torch.load(f"{folder}/truth.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64, sys.argv[2:] or [HEAD])
