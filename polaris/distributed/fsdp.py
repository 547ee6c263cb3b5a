"""FSDP2: one sharding unit per decoder layer and one for embedding, final norm and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor


class Layered(Protocol):
    """A module with a list of its decoder layers, such as `polaris.model.policy.Policy`."""

    @property
    def layers(self) -> Sequence[nn.Module]: ...


L = TypeVar("L", bound=Layered)
ON_DEVICE = OffloadPolicy()


def shard(policy: L, mesh: DeviceMesh, compute_dtype: torch.dtype, offload: OffloadPolicy = ON_DEVICE) -> L:
    """Shard parameters over the mesh, on its devices or in host memory; compute in `compute_dtype`, reduce gradients in float32 as a plain
    sum.

    The sum replaces FSDP's default mean: the loss divides by the tokens of all ranks already.
    """
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    assert isinstance(policy, nn.Module)
    for layer in policy.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision, offload_policy=offload)
    fully_shard(policy, mesh=mesh, mp_policy=precision, offload_policy=offload)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return policy


def shard_group(policy: nn.Module) -> ProcessGroup:
    """The process group of the ranks that hold the policy's shards, for the collectives of an update."""
    parameter = next(policy.parameters())
    assert isinstance(parameter, DTensor)
    return parameter.device_mesh.get_group()


def divide_gradients(policy: nn.Module, divisor: float) -> None:
    """Divide this rank's shard of every gradient, in float32 after FSDP has reduced it.

    FSDP's own divide factor is not used: with one rank and forced sums torch 2.13 divides twice.
    """
    torch._foreach_div_([parameter.grad.to_local() for parameter in policy.parameters() if isinstance(parameter.grad, DTensor)], divisor)


def reshard(policy: nn.Module) -> None:
    """Free the embedding, norm and head that a forward without a backward leaves gathered: gigabytes that rollouts need."""
    assert isinstance(policy, FSDPModule)
    policy.reshard()


def assert_sharded(policy: nn.Module) -> None:
    """Raise RuntimeError if a forward has left a parameter gathered: it would take memory from the sampling engine."""
    gathered = [name for name, parameter in policy.named_parameters() if not isinstance(parameter, DTensor)]
    if gathered:
        raise RuntimeError(f"{len(gathered)} parameters are not sharded while the engine samples, such as {gathered[0]}")
