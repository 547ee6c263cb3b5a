"""Training of adapters (LoRA, Hu et al. 2021) in the place of all weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from polaris.config.bounds import at_least, at_most, finite, positive
from polaris.config.names import nearest
from polaris.errors import Refused

LARGEST_RANK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """The model stays as it is, in model.dtype; two small matrices beside each linear layer, in float32, are all that is trained."""

    rank: int = 0
    """Columns of one matrix and rows of the other, such as 16; 0 trains all weights of the model."""
    alpha: float = 32.0
    """What the adapters add is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Linear layers with adapters, such as ["q_proj", "v_proj"]; by default all of the decoder's layers, and never the output head."""
    sync: Literal["merged", "adapter"] = "merged"
    """How engines get them. `merged`: added to the model's weights and rounded to model.dtype, for every engine. `adapter`: as they are,
    which a vLLM engine beside the trainer (rollout.placement = "colocated") adds to each layer's output as the trainer does."""

    def __post_init__(self) -> None:
        at_least("model.lora", 0, rank=self.rank)
        at_most("model.lora", LARGEST_RANK, rank=self.rank)
        positive("model.lora", alpha=self.alpha)
        finite("model.lora", alpha=self.alpha)
        if not self.rank and any(getattr(self, field.name) != field.default for field in fields(self)):
            raise Refused("[model.lora] has settings but no rank, so that all weights would be trained; set model.lora.rank, such as 16")

    def check_targets(self, known: Sequence[str]) -> None:
        """Raise `Refused` unless all of `targets` are among `known`, the names of a model's linear layers."""
        for target in self.targets:
            if target not in known:
                close = nearest(target, known)
                raise Refused(
                    f"model.lora.targets: {target!r} is no linear layer of the decoder's layers; "
                    f"{f'did you mean {close!r}? There are' if close else 'there are'} {', '.join(known)}"
                )

    @property
    def served_apart(self) -> bool:
        """Whether the engine holds the adapters beside the model's weights."""
        return self.rank > 0 and self.sync == "adapter"
