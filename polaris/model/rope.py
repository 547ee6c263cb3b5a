"""From the `[rope]` section and a checkpoint's configuration to the one rotary embedding of trainer, engine and export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from polaris.config.model import RopeConfig
from polaris.errors import Refused
from polaris.model.folder import transformers_config

OWN = RopeConfig()
"""The checkpoint's own rotary embedding and positions."""

_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_SCALED = _COMMON | {"factor", "original_max_position_embeddings"}
_KEYS = {
    "default": _COMMON | {"original_max_position_embeddings"},
    "llama3": _SCALED | {"low_freq_factor", "high_freq_factor"},
    "yarn": _SCALED | {"attention_factor", "beta_fast", "beta_slow", "truncate"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """A rotary embedding with all values explicit, since defaults of transformers and vLLM differ by version."""

    parameters: dict[str, Any]
    """`rope_parameters` of config.json; empty if the model has learned positions, or a rotary embedding per kind of layer (Gemma 3):
    then each stack reads the checkpoint's own configuration."""
    dimensions: int
    """Rotated dimensions per head; 0 without `parameters`."""
    original_positions: int
    """Positions that the checkpoint was trained for."""
    max_positions: int
    """Longest sequence in tokens."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The entries of config.json for this embedding."""
        positions = {"max_position_embeddings": self.max_positions}
        if self.parameters:
            return {"rope_parameters": dict(self.parameters)} | positions
        return positions if self.max_positions != self.original_positions else {}


def resolve_rope(folder: str | Path, settings: RopeConfig = OWN) -> Rope:
    """The rotary embedding of a checkpoint folder under these settings.

    Raises:
        ValueError: transformers does not know the model, Polaris cannot verify its kind of rope, or YaRN does not apply.
    """
    config = transformers_config(folder)
    own = dict(getattr(config, "rope_parameters", None) or {})
    if own.get("rope_theta") is None:
        return _unscaled(config, own, settings, folder)
    parameters = _yarn(own, config.max_position_embeddings, settings, folder) if settings.factor > 1 else _explicit(own, folder)
    return Rope(
        parameters=parameters,
        dimensions=_dimensions(config, own),
        original_positions=parameters.get("original_max_position_embeddings") or int(config.max_position_embeddings),
        max_positions=_positions(config, parameters) if settings.max_positions is None else settings.max_positions,
    )


def _unscaled(config: PreTrainedConfig, own: dict[str, Any], settings: RopeConfig, folder: str | Path) -> Rope:
    """For models without one rotary embedding for all layers: positions stay as in the checkpoint."""
    positions = int(getattr(config, "max_position_embeddings", None) or 0)
    if positions <= 0:
        raise Refused(f"{folder}/config.json does not say how many positions the model has (max_position_embeddings)")
    kind = "a rotary embedding for each kind of layer" if own else "no rotary embedding"
    if settings.factor != 1:
        raise Refused(f"rope.factor = {settings.factor:g}: {folder} has {kind}, which YaRN cannot extend here; set it to 1")
    longest = positions if settings.max_positions is None else settings.max_positions
    if not own and longest > positions:
        raise Refused(f"rope.max_positions = {longest}: {folder} has {kind} and {positions} positions; leave it out")
    return Rope(parameters={}, dimensions=0, original_positions=positions, max_positions=longest)


def rotary_table(model: nn.Module, positions: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """Cosines, then sines, of a transformers model with activations of `dtype`: [len(positions), rotated dimensions].

    None if no single module computes them.
    """
    found = {id(module): module for module in model.modules() if hasattr(module, "inv_freq")}
    if len(found) != 1:
        return None
    rotary: Any = next(iter(found.values()))
    device = rotary.inv_freq.device
    tables = rotary(torch.empty(0, dtype=dtype, device=device), torch.tensor([positions], device=device))
    return torch.cat([_distinct(table[0]) for table in tables], dim=-1).cpu()


def _distinct(table: Tensor) -> Tensor:
    """Each frequency once: models repeat the table [P, D] half by half, or column by column (Cohere)."""
    half = table.shape[-1] // 2
    return table[:, :half] if torch.equal(table[:, :half], table[:, half:]) else table[:, ::2]


def yarn_attention_factor(factor: float) -> float:
    """The factor on cosines and sines, 0.1 ln(factor) + 1 (YaRN, Peng et al. 2023, section 3.4)."""
    return 0.1 * math.log(factor) + 1


def _yarn(own: dict[str, Any], positions: int, settings: RopeConfig, folder: str | Path) -> dict[str, Any]:
    """Parameters of YaRN in place of the checkpoint's rope, which is plain or YaRN."""
    kind = own["rope_type"]
    if kind not in ("default", "yarn"):
        raise Refused(f"rope.factor: {folder} already scales its rope by {kind}, which YaRN cannot extend; set it to 1")
    original = settings.original_positions or own.get("original_max_position_embeddings") or positions
    extended = {"factor": settings.factor, "original_max_position_embeddings": original, "attention_factor": settings.attention_factor}
    return _complete(own | extended)


def _explicit(own: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """The checkpoint's own parameters; raises `Refused` for a key that only one of the stacks reads."""
    kind = own["rope_type"]
    if kind not in _KEYS:
        raise Refused(f"{folder} has a rope of type {kind}; Polaris trains only types that it verifies: {', '.join(_KEYS)}")
    unknown = sorted(set(own) - _KEYS[kind])
    if unknown:
        raise Refused(
            f"{folder}/config.json has rope parameters that transformers and vLLM read differently: {', '.join(unknown)}; "
            "set rope.factor, rope.original_positions and rope.attention_factor, which replace them"
        )
    return _complete(own) if kind == "yarn" else {name: value for name, value in own.items() if name != "type"}


def _complete(yarn: dict[str, Any]) -> dict[str, Any]:
    factor = float(yarn["factor"])
    return {
        "rope_type": "yarn",
        "rope_theta": yarn["rope_theta"],
        "factor": factor,
        "original_max_position_embeddings": int(yarn["original_max_position_embeddings"]),
        "attention_factor": float(yarn.get("attention_factor") or yarn_attention_factor(factor)),
        "beta_fast": yarn.get("beta_fast") or 32,
        "beta_slow": yarn.get("beta_slow") or 1,
        "truncate": yarn.get("truncate", True),
    } | ({"partial_rotary_factor": yarn["partial_rotary_factor"]} if "partial_rotary_factor" in yarn else {})


def head_size(config: PreTrainedConfig) -> int:
    """Size of one attention head, derived if the configuration does not name it."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _dimensions(config: PreTrainedConfig, own: dict[str, Any]) -> int:
    rotated = getattr(config, "qk_rope_head_dim", None) or head_size(config)
    return int(rotated * own.get("partial_rotary_factor", 1.0))


def _positions(config: PreTrainedConfig, parameters: dict[str, Any]) -> int:
    """Longest sequence from max_position_embeddings, which YaRN checkpoints give before or after the extension."""
    extended = parameters["original_max_position_embeddings"] * parameters["factor"] if parameters["rope_type"] == "yarn" else 0
    return max(int(config.max_position_embeddings), int(extended))
