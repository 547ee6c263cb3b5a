"""FSDP2: one sharding unit per decoder layer and one for embedding, final norm and head."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from polaris.model.policy import Policy


def shard(policy: Policy, mesh: DeviceMesh, compute_dtype: torch.dtype) -> Policy:
    """Shard float32 parameters over the mesh; compute in `compute_dtype`, reduce gradients in float32 as a plain sum.

    The sum (not FSDP's default mean) belongs to the loss, whose denominator already counts the tokens of every rank.
    """
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in _layers(policy):
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return policy


def _layers(policy: Policy) -> list[nn.Module]:
    return list(policy.model.get_decoder().layers)
