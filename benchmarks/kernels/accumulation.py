"""What the accumulation of tensor cores alone does to log-probs, entropies and gradients, emulated bit for bit on a CPU.

    python -m benchmarks.kernels.accumulation [CHECKPOINT ...] > table.md

Heads of `heads.py`, and of checkpoints on a text. Errors are against float64 at temperature 0.8; everything but the head's product, or
the gradient's, is float64. Targets are drawn from the model's own distribution ("sampled") and uniformly over the vocabulary ("uniform").
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.kernels.heads import draw
from benchmarks.kernels.peers import TEMPERATURE
from benchmarks.kernels.tensor_cores import AMPERE, HOPPER, TensorCore, dot
from polaris_kernels.gain import logit_gain

ROWS, LIKELY = 64, 96
"""Rows of a table, and the likeliest tokens of each whose logits are emulated; those of the others are far too small to matter."""
CORES = {"sm_90": HOPPER, "sm_80": AMPERE}
WAYS = {"one sum": (1, False), "two halves": (2, False), "four quarters": (4, False), "one sum, gain": (1, True)}
"""How a logit is summed: segments of H, each with an accumulator of its own, that are added in float32; whether times `logit_gain`."""


def operands(checkpoints: list[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, hidden states [ROWS, H] and head [V, H] in bfloat16."""
    for head in ("qwen2.5-0.5b", "qwen3-4b", "qwen3-8b"):
        hidden, weight, _ = draw(head, ROWS, torch.device("cpu"))
        yield head, hidden.detach(), weight.detach()
    for folder in checkpoints:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        tokens = AutoTokenizer.from_pretrained(folder)(Path("README.md").read_text(), return_tensors="pt").input_ids[:, : 4 * ROWS]
        with torch.no_grad():
            yield Path(folder).name, model.model(tokens).last_hidden_state[0, ::4], model.get_output_embeddings().weight.detach()


class Softmax:
    """Exact logits of all tokens, and errors of what follows from emulated logits of some."""

    def __init__(self, hidden: Tensor, weight: Tensor) -> None:
        self.logits = torch.cat([hidden.double() @ slab.double().T for slab in weight.split(8192)], 1)
        generator = torch.Generator().manual_seed(1)
        sampled = torch.multinomial((self.logits / TEMPERATURE).softmax(1), 1, generator=generator)
        uniform = torch.randint(len(weight), sampled.shape, generator=generator)
        self.tokens = torch.cat([self.logits.topk(LIKELY, 1).indices, sampled, uniform], 1)
        self.logprobs, self.entropy = _softmax(self.logits)

    def errors(self, emulated: Tensor) -> list[Tensor]:
        """Of the likeliest token's logit, log-probs of sampled and uniform tokens, entropies, from logits [ROWS, LIKELY + 2]."""
        logprobs, entropy = _softmax(self.logits.scatter(1, self.tokens, emulated))
        change = (logprobs - self.logprobs).gather(1, self.tokens)
        top = emulated[:, 0] - self.logits.gather(1, self.tokens)[:, 0]
        return [top, change[:, -2], change[:, -1], entropy - self.entropy]


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = (logits / TEMPERATURE).log_softmax(1)
    return logprobs, -(logprobs.exp() * logprobs).sum(1)


def emulated_logits(core: TensorCore, hidden: Tensor, weight: Tensor, tokens: Tensor, segments: int) -> Tensor:
    """Logits [ROWS, N] of tokens [ROWS, N]; segments of H are summed apart and added in float32."""
    rows = []
    for row, columns in zip(hidden, tokens, strict=True):
        parts = zip(row.chunk(segments), weight[columns].chunk(segments, 1), strict=True)
        total = hidden.new_zeros(len(columns), dtype=torch.float32)
        for left, right in parts:
            total = total + dot(core, left, right).float()
        rows.append(total.double())
    return torch.stack(rows)


def gradient_errors(core: TensorCore, logprobs: Tensor, tokens: Tensor, weight: Tensor, slab: int) -> tuple[float, float]:
    """Of the gradient of hidden states: relative norm over 8 rows and 32 of H, and the same without what rounding logit gradients costs.

    One product over each `slab` of the vocabulary; their sums are added in float32.
    """
    exact = torch.zeros_like(logprobs[:8]).scatter_(1, tokens[:8, -2:-1], 1.0) - logprobs[:8].exp()
    rounded, columns = exact.bfloat16(), weight[:, :32].T.contiguous()
    total = torch.zeros(8, 32)
    for few in torch.arange(len(weight)).split(slab):
        total += dot(core, rounded[:, None, few], columns[:, few]).float()
    truth, unrounded = rounded.double() @ columns.double().T, exact @ columns.double().T
    return float((total - unrounded).norm() / unrounded.norm()), float((total - truth).norm() / truth.norm())


def main(checkpoints: list[str]) -> None:
    gradients = []
    print("| operands | chip | logits | likeliest logit | sampled | uniform | entropy |\n" + "|---" * 7 + "|")
    for name, hidden, weight in operands(checkpoints):
        softmax = Softmax(hidden, weight)
        size = hidden.shape[1]
        for chip, core in CORES.items():
            for way, (segments, with_gain) in WAYS.items():
                emulated = emulated_logits(core, hidden, weight, softmax.tokens, segments)
                emulated *= logit_gain(chip, torch.bfloat16, size) if with_gain else 1.0
                found = [f"{float(e.abs().max()):.1e} ({float(e.square().mean().sqrt()):.1e})" for e in softmax.errors(emulated)]
                print(f"| {name}, H = {size} | {chip} | {way} | " + " | ".join(found) + " |", flush=True)
            for slab in (8192, len(weight)):
                both = gradient_errors(core, softmax.logprobs, softmax.tokens, weight, slab)
                gradients.append(f"| {name}, H = {size} | {chip} | {slab} | {both[0]:.1e} | {both[1]:.1e} |")
    print("\n| operands | chip | columns of a product | error of the gradient of hidden | of which accumulation |\n" + "|---" * 5 + "|")
    print("\n".join(gradients))


if __name__ == "__main__":
    main(sys.argv[1:])
