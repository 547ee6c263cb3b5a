"""Published shapes of dense models, as the config.json of their checkpoints have them, so that plans need no network."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from polaris.plan.shape import ModelShape, shape_of

_QWEN3 = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151_936, "max_position_embeddings": 40_960}


def _qwen3(hidden: int, inner: int, layers: int, heads: int, tied: bool) -> dict[str, object]:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": tied} | sizes | _QWEN3


CONFIGS: dict[str, dict[str, object]] = {
    "Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, True),
    "Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, True),
    "Qwen3-4B": _qwen3(2560, 9728, 36, 32, True),
    "Qwen3-8B": _qwen3(4096, 12_288, 36, 32, False),
    "Qwen3-14B": _qwen3(5120, 17_408, 40, 40, False),
    "Qwen3-32B": _qwen3(5120, 25_600, 64, 64, False),
    "Qwen2.5-Math-7B": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}
"""By the last part of their names on the Hugging Face hub."""


def write(name: str, folder: Path) -> Path:
    """A folder with the model's config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return folder


@cache
def shape(name: str) -> ModelShape:
    with tempfile.TemporaryDirectory() as folder:
        return shape_of(write(name, Path(folder)))
