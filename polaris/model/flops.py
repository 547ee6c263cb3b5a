"""Floating-point operations of a model's forward and backward, and the peak rates of cards that they are compared with.

Model FLOPs are what the mathematics needs: two for each multiplication of a matrix's weight with a token. What an implementation computes
twice (recomputed activations, logits that are not kept), pads, or never multiplies (norms, softmax, embeddings) does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from polaris.model.rope import head_size

PEAK_FLOPS = {
    "GB300": 2500e12,
    "GB200": 2500e12,
    "B300": 2250e12,
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "GH200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "RTX 6000 Ada": 364e12,
    "MI325X": 1307e12,
    "MI300X": 1307e12,
}
"""FLOP/s of dense bfloat16 products with float32 sums, by words of the device's name; of several that fit, the first is meant.

From the makers' data sheets, which give twice as much "with sparsity": NVIDIA's of each data center card (nvidia.com/en-us/data-center),
appendix A of its architecture papers for RTX (Ampere GA102, Ada, Blackwell; products with float32 sums have half the rate there), and
AMD's of each Instinct card. torchtitan (`tools/utils.py`) and prime-rl (`trainer/perf.py`) have the same numbers for A100, H100, H200 and
B200.
"""


def peak_flops(card: str) -> float | None:
    """FLOP/s of the card with this device name; None if it is not in the table."""
    words = set(card.replace("-", " ").split())
    return next((rate for name, rate in PEAK_FLOPS.items() if set(name.split()) <= words), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlops:
    """What of a model multiplies: 6N + attention, as PaLM (Chowdhery et al. 2022, appendix B) counts.

    Two differences, both towards fewer: causal attention's upper triangle does not count (PaLM, torchtitan and prime-rl count the whole
    square, 12 instead of 6 L H D T a token), and the head counts for those tokens alone that a loss is taken of.
    """

    layers: int
    """Weights of all matrices but embeddings and head."""
    layers_trained: int
    """Those among them that get a gradient; all, without adapters."""
    head: int
    """Weights of the head, tied or not."""
    head_trained: bool
    width: int
    """Query heads times their size, summed over layers."""

    def forward(self, lengths: Sequence[int], predicted: float) -> float:
        """FLOPs of one forward pass over sequences of these lengths (tokens), with the head at `predicted` of their tokens."""
        return 2 * (self.layers * sum(lengths) + self.head * predicted) + self._attention(lengths)

    def training(self, lengths: Sequence[int], predicted: float) -> float:
        """FLOPs of forward and backward. The backward's are those of the forward for the gradients of activations, and again for those of
        the weights that are trained."""
        activations = 2 * self.forward(lengths, predicted)
        weights = 2 * (self.layers_trained * sum(lengths) + self.head * predicted * self.head_trained)
        return activations + weights + self._attention(lengths)  # keys and values have gradients as queries and scores do

    def _attention(self, lengths: Sequence[int]) -> float:
        """Scores and their products with values: 2 FLOPs each for half of a square."""
        return 2.0 * self.width * sum(length * length for length in lengths)


def model_flops(model: PreTrainedModel) -> ModelFlops:
    """Of a model on any device ("meta" too), sharded or not; an adapter's matrices count as its own."""
    config, output = model.config, model.get_output_embeddings()
    assert output is not None
    head: Any = output.weight
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [one for one in model.parameters() if one.ndim == 2 and id(one) not in embeddings and one is not head]
    return ModelFlops(
        layers=sum(one.numel() for one in matrices),
        layers_trained=sum(one.numel() for one in matrices if one.requires_grad),
        head=head.numel(),
        head_trained=bool(head.requires_grad),
        width=config.num_hidden_layers * config.num_attention_heads * head_size(config),
    )


def config_flops(config: PreTrainedConfig) -> ModelFlops:
    """Of the model of a configuration, all of it trained; no weight is made."""
    with torch.device("meta"):
        return model_flops(AutoModelForCausalLM.from_config(config))
