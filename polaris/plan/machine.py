"""The GPUs of this machine, as defaults of a plan."""

from __future__ import annotations

from polaris.host import host_memory
from polaris.plan.cards import DEFAULT, GIB, Card, card_named, card_of_device


def gpus_here() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def host_gib() -> float:
    """Host memory that this process may have."""
    return host_memory() / GIB


def machine_of(name: str | None = None, gpus: int | None = None) -> tuple[Card, int]:
    """The card of that name and so many of them; by default what this machine has, and without any 8 of the table's first card.

    Raises:
        Refused: no card has the name.
    """
    if name is not None and gpus is not None:
        return card_named(name), gpus
    here = gpus_here()
    if name is not None:
        return card_named(name), 8
    if not here:
        return card_named(DEFAULT), gpus or 8
    import torch

    device = torch.cuda.get_device_properties(0)
    return card_of_device(device.name, device.total_memory), gpus or here
