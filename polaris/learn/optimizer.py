"""AdamW and its learning rate, a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from polaris.config.training import OptimizerConfig
from polaris.learn.eight_bit import adamw_8bit


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW on the float32 parameters that are trained; weight decay on matrices only, as is usual for norms and biases.

    Its moments are there from the start. Made by the first step, they would lie scattered among the activations' memory; and
    torch's `get_state_dict` would step once with zero gradients to make them, so that what is saved before the first update has
    a step count of 1.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "adamw8bit":
        return adamw_8bit(groups, config)
    # `foreach` needs four more bytes per parameter than `fused` while it steps, and in host memory it reads everything several times.
    fast = {"fused": True} if all(map(_of_gpu, parameters)) else {"foreach": True}
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, **fast)
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device if "fused" in fast else "cpu"),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _of_gpu(parameter: nn.Parameter) -> bool:
    """Whether a GPU computes with it, wherever it is kept."""
    return parameter.is_cuda or (isinstance(parameter, DTensor) and parameter.device_mesh.device_type == "cuda")


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Of the next update. That of torchao is a tensor, which its compiled step has as an argument."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def last_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Of the last update."""
    return float(optimizer.param_groups[0]["lr"])


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of step 1..total_steps: linear warm-up, then constant or cosine to `min_lr_fraction`."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.min_lr_fraction + (1 - config.min_lr_fraction) * cosine)
