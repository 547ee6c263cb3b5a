"""GPUs and rates: every number of the plan that is not counted from the model or the configuration, with its source."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polaris.config.names import nearest
from polaris.errors import Refused
from polaris.model.flops import peak_flops

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU. Rates are of one direction; `network` is what a GPU has of its node's."""

    name: str
    gib: float
    """Memory that CUDA reports, below the name's decimal gigabytes."""
    hbm: float
    """GB/s of its memory."""
    matrix: float
    """TFLOP/s of dense bfloat16 products with float32 sums, on the data sheet."""
    products: float
    """TFLOP/s that large products hold, below it where power is the limit."""
    link: float
    """GB/s to its neighbours in the node: NVLink, or PCIe where there is none."""
    host: float
    """GB/s to host memory."""
    network: float
    """GB/s to other nodes: one adapter of 400 Gb/s per GPU (Hopper, Blackwell), of 200 (A100), of 100 for each GPU of the others."""
    attention: float
    """TFLOP/s of attention, forward and backward, by the kernel that torch has (FlashAttention-2); see `RATES`."""


def _card(name: str, gib: float, *rates: float) -> Card:
    hbm, products, attention, link, host, network = rates
    peak = peak_flops(name)
    assert peak is not None, name
    matrix = peak / 1e12
    shares = {"products": products * matrix, "attention": attention * matrix}
    return Card(name=name, gib=gib, hbm=hbm, matrix=matrix, link=link, host=host, network=network, **shares)


CARDS = (
    #      name            GiB   GB/s  products attention link host network
    _card("H100 80GB", 79.1, 3350, 0.66, 0.35, 450, 64, 50),
    _card("H200 141GB", 139.8, 4800, 0.66, 0.35, 450, 64, 50),
    _card("H800 80GB", 79.1, 3350, 0.66, 0.35, 200, 64, 50),
    _card("H20 96GB", 95.1, 4000, 0.90, 0.60, 450, 64, 50),
    _card("B200 180GB", 178.4, 8000, 0.66, 0.15, 900, 64, 50),
    _card("A100 80GB", 79.1, 2039, 0.80, 0.60, 300, 32, 25),
    _card("A100 40GB", 39.4, 1555, 0.80, 0.60, 300, 32, 25),
    _card("L40S 48GB", 44.4, 864, 0.60, 0.40, 32, 32, 12.5),
    _card("RTX 4090 24GB", 23.5, 1008, 0.90, 0.60, 32, 32, 12.5),
)
"""NVIDIA's data sheets (SXM boards; L40S; GeForce RTX 4090 by the Ada white paper; H800 and H20 as H100 with the published cuts); dense
TFLOP/s are those of `polaris.model.flops.PEAK_FLOPS`, of which `products` and `attention` are shares. Hopper's were measured on one H200:
products of 656 TFLOP/s, held for two seconds (benchmarks/results/kernels_nvidia-h200_2026-11-28.md); attention of 344, as what grows with
the square of the length of a training step of Qwen3-4B (benchmarks/results/step_nvidia-h200_2026-11-28.md). B200 runs the same attention
kernel and is assumed no faster. Attention on Ampere is from the FlashAttention-2 paper (Dao 2023: 50 to 73 % on A100). All others are
assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What software makes of the hardware. `measured` and `assumed` numbers alike are the same for every model and configuration."""

    passes: float = 20.0
    """How often HBM moves what a layer keeps of a token, by all that is neither product nor attention, with fused modules: one H200 took
    0.28 s more than products take for 16,384 tokens of Qwen3-4B (1.06 s, the same measurement: what grows with the length)."""
    attention_3: float = 0.50
    """FlashAttention-3 on Hopper, of dense TFLOP/s: prime-rl's BENCHMARKS.md (2026-02-01), Qwen3-4B LoRA on 8 H200 at 64K beside 16K."""
    reading: float = 0.8
    """Of HBM's GB/s, weights in decoding; assumed."""
    cache: float = 0.7
    """Of HBM's GB/s, KV cache in decoding: assumed, as benchmarks/rollout/engines.py does."""
    decoding: float = 0.27
    """Of dense TFLOP/s, products of a decoding step; assumed, ibid."""
    step: float = 3e-3
    """Seconds of a decoding step beside the GPU's work, with CUDA graphs; assumed, ibid."""
    reduction: float = 30e-6
    """Seconds of an all-reduce of a decoding step under tensor parallelism, two a layer; assumed."""
    collective: float = 0.75
    """Of link and network, FSDP's collectives; assumed."""
    travel: float = 0.8
    """Of the way to host memory; assumed."""
    host: float = 50e9
    """Bytes/s of host memory per GPU (400 GB/s a node); assumed."""
    host_step: float = 48
    """Bytes of host memory that an update moves per parameter beside the transfers: 28 for AdamW (fused), 8 to divide gradients, 4 for
    their norm and 8 to clip them; counted."""
    balance: float = 1.05
    """Longest rank's update beside the mean (docs/log.md: sorted packs cost 0.5 to 1.3 %, ranks 2 to 5 % more); assumed."""
    turn: float = 10.0
    """Seconds of a step for sleep, wake, weight sync and grading of the last responses; assumed."""


RATES = Rates()
DEFAULT = "H100 80GB"


def card_named(name: str) -> Card:
    """The card of that name; its beginning is enough, as are other spaces and capitals ("h100", "RTX4090").

    Raises:
        Refused: no card or several begin so.
    """
    key = _plain(name)
    same = [card for card in CARDS if key in (_plain(card.name), _plain(card.name.rsplit(" ", 1)[0]))]
    found = same or [card for card in CARDS if key and _plain(card.name).startswith(key)]
    if len(found) == 1:
        return found[0]
    names = [card.name for card in found or CARDS]
    near = nearest(name, names) if not found else None
    said = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
    raise Refused(f"--gpu {name!r} is {'several cards' if found else 'unknown'}; {said}")


def card_of_device(name: str, total: int) -> Card:
    """The card with the memory that a device reports, `total` bytes; of a device that is not in the table, with the default's rates."""
    plain = _plain(name)
    known = [card for card in CARDS if _plain(card.name.rsplit(" ", 1)[0]) in plain]
    best = min(known or [card_named(DEFAULT)], key=lambda card: abs(card.gib * GIB - total))
    return replace(best, name=name, gib=total / GIB)


def _plain(name: str) -> str:
    return "".join(name.lower().split()).removeprefix("nvidia").replace("geforce", "")
