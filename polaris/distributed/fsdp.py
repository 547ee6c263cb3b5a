"""FSDP2: one sharding unit per decoder layer and one for embedding, final norm and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor


class Layered(Protocol):
    """A module with a list of its decoder layers, such as `polaris.model.policy.Policy`."""

    @property
    def layers(self) -> Sequence[nn.Module]: ...


L = TypeVar("L", bound=Layered)


def shard(policy: L, mesh: DeviceMesh, compute_dtype: torch.dtype, *, on_host: bool = False, reshard: bool = True) -> L:
    """Shard parameters over the mesh, on its devices or in host memory; compute in `compute_dtype`, reduce gradients in float32 as a plain
    sum. Over a mesh of two dimensions the first has copies, and the second their shards.

    The sum replaces FSDP's default mean: the loss divides by the tokens of all ranks already. `reshard`: whether layers free what they
    have gathered for a forward.
    """
    precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if on_host else OffloadPolicy()
    assert isinstance(policy, nn.Module)
    for layer in policy.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision, offload_policy=offload, reshard_after_forward=reshard)
    fully_shard(policy, mesh=mesh, mp_policy=precision, offload_policy=offload)
    for module in _units(policy):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return policy


def begin_pack(policy: nn.Module, last: bool, reshard: bool) -> None:
    """Before the forward of one of an update's packs: copies add up their gradients after the last one, not after each; and with
    `reshard` off weights stay gathered until then.
    """
    assert isinstance(policy, FSDPModule)
    policy.set_requires_all_reduce(last)
    policy.set_reshard_after_backward(reshard or last)


def groups_of(policy: nn.Module) -> list[dist.ProcessGroup]:
    """The process groups of the policy's mesh, one for each dimension: what is reduced over each in turn is reduced over all ranks that
    train. For the collectives of an update."""
    parameter = next(policy.parameters())
    assert isinstance(parameter, DTensor)
    return parameter.device_mesh.get_all_groups()


def full(weight: Tensor) -> Tensor:
    """The whole of a sharded weight, on the device that computes, wherever its shards are; a collective on every rank."""
    if not isinstance(weight, DTensor):
        return weight
    mesh, local = weight.device_mesh, weight.to_local()
    if local.device.type != mesh.device_type:
        local = local.to(mesh.device_type)
        weight = DTensor.from_local(local, mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride())
    return weight.full_tensor()


def divide_gradients(policy: nn.Module, divisor: float) -> None:
    """Divide this rank's shard of every gradient, in float32 after FSDP has reduced it.

    FSDP's own divide factor is not used: with one rank and forced sums torch 2.13 divides twice.
    """
    torch._foreach_div_([parameter.grad.to_local() for parameter in policy.parameters() if isinstance(parameter.grad, DTensor)], divisor)


def reshard(policy: nn.Module) -> None:
    """Free what a forward without a backward leaves gathered, such as embedding, norm and head: gigabytes that rollouts need."""
    for module in _units(policy):
        module.reshard()


def assert_sharded(policy: nn.Module) -> None:
    """Raise RuntimeError if a forward has left a parameter gathered: it would take memory from the sampling engine."""
    gathered = [name for name, parameter in policy.named_parameters() if not isinstance(parameter, DTensor)]
    if gathered:
        raise RuntimeError(f"{len(gathered)} parameters are not sharded while the engine samples, such as {gathered[0]}")


def _units(policy: nn.Module) -> Iterator[FSDPModule]:
    yield from (module for module in policy.modules() if isinstance(module, FSDPModule))
