"""Polaris: the POLARIS post-training recipe as one resumable job on PyTorch FSDP2, vLLM and Triton; its folders are floors that stand on
each other (docs/architecture.md).

A program of your own calls `load_config`, `train`, `evaluate` and `grade` (docs/notebook.md).
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_config` and `grade`, read when first asked for: every import of a part of Polaris comes by here, a grading process's too."""
    if name == "load_config":
        from polaris.config.load import load_config

        return load_config
    if name == "grade":
        from polaris.reward.once import grade

        return grade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
