"""The `[rope]` block and a checkpoint's configuration -> the one rotary embedding that trainer, engine and export get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from polaris.config.bounds import require
from polaris.config.recipe import RopeConfig
from polaris.errors import Refused

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
    """A rotary embedding with nothing left to a default, since the defaults of transformers and vLLM differ by version."""

    parameters: dict[str, Any]
    """`rope_parameters` of config.json."""
    dimensions: int
    """Rotated dimensions of a head."""
    original_positions: int
    """Positions that the checkpoint was made for."""
    max_positions: int
    """Longest sequence in tokens."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The entries of config.json that carry it."""
        return {"rope_parameters": dict(self.parameters), "max_position_embeddings": self.max_positions}


def resolve_rope(folder: str | Path, settings: RopeConfig = OWN) -> Rope:
    """The rotary embedding of a checkpoint folder under these settings.

    Raises:
        ValueError: transformers does not know the model, its rope is of a kind that Polaris cannot verify, or YaRN does not apply.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Refused(f"{folder}: transformers cannot build this model ({str(error).splitlines()[0]})") from None
    own = dict(getattr(config, "rope_parameters", None) or {})
    require(
        own.get("rope_theta") is not None,
        f"{folder}/config.json gives no single rope_theta; Polaris trains models with one rotary embedding",
    )
    parameters = _yarn(own, config.max_position_embeddings, settings, folder) if settings.factor > 1 else _explicit(own, folder)
    return Rope(
        parameters=parameters,
        dimensions=_dimensions(config, own),
        original_positions=parameters.get("original_max_position_embeddings") or int(config.max_position_embeddings),
        max_positions=settings.max_positions or _positions(config, parameters),
    )


def rotary_table(model: PreTrainedModel, positions: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Cosines, then sines, that a transformers model with activations of `dtype` applies: [len(positions), rotated dimensions]."""
    rotary = model.get_decoder().rotary_emb
    device = rotary.inv_freq.device
    tables = rotary(torch.empty(0, dtype=dtype, device=device), torch.tensor([positions], device=device))
    return torch.cat([table[0, :, : table.shape[-1] // 2] for table in tables], dim=-1).cpu()


def yarn_attention_factor(factor: float) -> float:
    """0.1 ln(factor) + 1, section 3.4 of YaRN (Peng et al. 2023): what cosines and sines are multiplied by."""
    return 0.1 * math.log(factor) + 1


def _yarn(own: dict[str, Any], positions: int, settings: RopeConfig, folder: str | Path) -> dict[str, Any]:
    """YaRN in place of the checkpoint's own rope, which is plain or YaRN itself."""
    kind = own["rope_type"]
    require(kind in ("default", "yarn"), f"rope.factor: {folder} already scales its rope by {kind}, which YaRN cannot extend; set it to 1")
    return _complete(
        own
        | {
            "factor": settings.factor,
            "original_max_position_embeddings": settings.original_positions or own.get("original_max_position_embeddings") or positions,
            "attention_factor": settings.attention_factor or None,
        }
    )


def _explicit(own: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """The checkpoint's own parameters; a key that one stack reads and the other does not is refused."""
    kind = own["rope_type"]
    require(kind in _KEYS, f"{folder} has a rope of type {kind}; Polaris verifies {', '.join(_KEYS)} and trains no other")
    unknown = sorted(set(own) - _KEYS[kind])
    require(
        not unknown,
        f"{folder}/config.json has rope parameters that transformers and vLLM read differently: {', '.join(unknown)}; "
        "set rope.factor, rope.original_positions and rope.attention_factor, which replace them",
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
    """Numbers of one attention head, which some configurations leave to be derived."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _dimensions(config: PreTrainedConfig, own: dict[str, Any]) -> int:
    return int(head_size(config) * own.get("partial_rotary_factor", 1.0))


def _positions(config: PreTrainedConfig, parameters: dict[str, Any]) -> int:
    """max_position_embeddings, which some YaRN checkpoints give before and some after the extension."""
    extended = parameters["original_max_position_embeddings"] * parameters["factor"] if parameters["rope_type"] == "yarn" else 0
    return max(int(config.max_position_embeddings), int(extended))
