"""FSDP2: one sharding unit per decoder layer and one for embedding, final norm and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


class Layered(Protocol):
    """A module that knows its decoder layers, such as `polaris.model.policy.Policy`."""

    @property
    def layers(self) -> Sequence[nn.Module]: ...


L = TypeVar("L", bound=Layered)


def shard(policy: L, mesh: DeviceMesh, compute_dtype: torch.dtype) -> L:
    """Shard float32 parameters over the mesh; compute in `compute_dtype`, reduce gradients in float32 as a plain sum.

    The sum (not FSDP's default mean) belongs to the loss, whose denominator already counts the tokens of every rank.
    """
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    assert isinstance(policy, nn.Module)
    for layer in policy.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return policy


def shard_group(policy: nn.Module) -> ProcessGroup:
    """The ranks that hold the policy's shards, as the group for the collectives of an update."""
    parameter = next(policy.parameters())
    assert isinstance(parameter, DTensor)
    return parameter.device_mesh.get_group()


def divide_gradients(policy: nn.Module, divisor: float) -> None:
    """Divide this rank's shard of every gradient, in the float32 that FSDP has reduced it to.

    FSDP's own divide factor would do it as it reduces, but with one rank and forced sums torch 2.13 divides twice.
    """
    torch._foreach_div_([parameter.grad.to_local() for parameter in policy.parameters() if isinstance(parameter.grad, DTensor)], divisor)


def reshard(policy: nn.Module) -> None:
    """Give back what a forward without a backward leaves gathered: embedding, norm and head, gigabytes that rollouts would miss."""
    assert isinstance(policy, FSDPModule)
    policy.reshard()


def assert_sharded(policy: nn.Module) -> None:
    """Raise RuntimeError where a parameter is gathered: what a forward has left so would take memory from the engine while it samples."""
    gathered = [name for name, parameter in policy.named_parameters() if not isinstance(parameter, DTensor)]
    if gathered:
        raise RuntimeError(f"{len(gathered)} parameters are not sharded while the engine samples, such as {gathered[0]}")
