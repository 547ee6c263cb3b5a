"""Adapters that vLLM adds to each layer's output, beside the model's weights, which stay as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from vllm import LLMEngine
from vllm.lora.request import LoRARequest

from polaris.config.lora import LoraConfig
from polaris.model.adapters import adapter_shapes, write_adapter
from polaris.rollout.checkpoint import complete

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes that vLLM makes room for."""
_MEMORY = Path("/dev/shm")


def adapter_arguments(lora: LoraConfig) -> dict[str, Any]:
    """Engine arguments for one adapter."""
    room = next(rank for rank in _RANKS if rank >= lora.rank)
    return {"enable_lora": True, "max_lora_rank": room, "max_loras": 1, "max_cpu_loras": 1} if lora.served_apart else {}


class ServedAdapter:
    """The adapter of an engine. Until the first `replace` it has none, and serves the model itself: adapters add nothing at first.

    Each one has a number of its own, so that vLLM takes neither weights nor KV cache of an earlier one for it.
    """

    def __init__(self, model_path: str | Path, lora: LoraConfig) -> None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
        self._path, self._lora, self._shapes = str(model_path), lora, adapter_shapes(model, lora)
        self._number = 0
        self.request: LoRARequest | None = None
        """What requests to vLLM are drawn with."""

    def replace(self, llm: LLMEngine, adapters: Iterable[tuple[str, Tensor]]) -> None:
        """Serve `adapters` (`Policy.named_adapters`) in the place of those before.

        Raises:
            RuntimeError: names or shapes are not those of the model's adapters, or vLLM does not take them.
        """
        if self.request is not None:
            llm.remove_lora(self._number)
        self._number += 1
        with tempfile.TemporaryDirectory(prefix="polaris-adapter-", dir=_MEMORY if self._has_room() else None) as folder:
            write_adapter(Path(folder), complete(adapters, self._shapes), self._lora, self._path)
            self.request = LoRARequest(lora_name=f"polaris-{self._number}", lora_int_id=self._number, lora_path=folder)
            taken = llm.add_lora(self.request)
        if not taken or set(llm.list_loras()) != {self._number}:
            raise RuntimeError(f"vLLM did not take adapter {self._number}; it has {sorted(llm.list_loras())}")

    def _has_room(self) -> bool:
        """Whether shared memory, of which containers often have 64 MiB, takes the adapters of all ranks of this machine at once."""
        size = 4 * sum(shape.numel() for shape in self._shapes.values()) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * size

    def held(self, runner: Any) -> dict[str, Tensor]:
        """Copies of what vLLM's model computes with, by the names of `replace`, in float32; read from the buffers of its layers."""
        manager = runner.lora_manager._adapter_manager
        if self.request is None or self._number not in manager.lora_index_to_id:
            return {}
        slot, rank, scale = manager.lora_index_to_id.index(self._number), self._lora.rank, self._lora.alpha / self._lora.rank
        found: dict[str, Tensor] = {}
        for name, module in manager.modules.items():
            parts = manager.packed_modules.get(name, [name])
            if not isinstance(module.lora_a_stacked, tuple):  # embedding and head
                continue
            for part, a, b in zip(parts, module.lora_a_stacked, module.lora_b_stacked, strict=True):
                found[f"{part}.lora_A.weight"] = a[slot, 0, :rank].float().cpu()
                found[f"{part}.lora_B.weight"] = b[slot, 0, :, :rank].float().cpu() / scale
        return {name: found[name] for name in self._shapes if name in found}
