"""Peak memory and launches of the operations at the sizes of a GPU, counted without one.

    python -m benchmarks.kernels.memory            # tables

The operations' own code runs as on an H200. Large tensors have no memory (device "meta"), small ones lie on the CPU, Triton's launches
and products of matrices do nothing; a mode below torch counts the bytes of storages that are alive, and the launches. What would need
the arithmetic is 1. Not counted: what torch and cuBLAS take inside one operator, and the allocator's rounding.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import platform
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from polaris_kernels import linear_logprob, linear_policy_loss, logprob_from_logits, policy_loss

SIZE, VOCABULARY = 2560, 151_936
"""Qwen3-4B's head, in bfloat16."""
ROWS = (8192, 40_960, 98_304)
OPERATIONS = ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss")
CASES = ("linear_logprob", "linear_policy_loss", "linear_logprob, policy_loss", "logprob_from_logits", "policy_loss")
PRODUCTS = ("mm", "addmm")
_FACTORIES = ("empty", "zeros", "ones", "full", "scalar_tensor", "empty_strided", "new_empty", "new_zeros", "new_full")
_FREE = ("empty", "empty_strided", "new_empty", "empty_like", "detach", "alias", "lift_fresh")
"""Operators that launch nothing, beside views."""
_SMALL = 2**20
"""Numbers of a tensor that still has memory, since which rows are taken depends on it."""


@dataclass(slots=True)
class Trace:
    """What calls allocated, in order, and launched.

    `changes`: a storage's key, and the bytes that it took or, negative, gave back. An operator of torch counts as one launch, though
    some, like `nonzero`, make several.
    """

    changes: list[tuple[int, int]] = field(default_factory=list)
    made: dict[int, str] = field(default_factory=dict)
    triton: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    _alive: dict[int, tuple[weakref.ref[Any], int]] = field(default_factory=dict)

    def key(self, tensor: Tensor, by: str = "") -> int:
        """Of a tensor's storage, which is followed from now to its end; an operator made it, or nobody inside did and it does not count."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._alive:
            address, key, size = storage._cdata, len(self.made), storage.nbytes() if by else 0

            def end(_: Any) -> None:
                del self._alive[address]
                self.changes.append((key, -size))

            self.changes.append((key, size))
            self.made[key] = f"{by} {str(tensor.dtype)[6:]} {list(tensor.shape)}"
            self._alive[address] = weakref.ref(storage, end), key
        return self._alive[storage._cdata][1]

    def peak(self, without: Collection[int] = ()) -> dict[int, int]:
        """Bytes by key of the storages that were alive when they took most; those `without` are left out."""
        alive: dict[int, int] = {}
        largest, most = {}, 0
        for key, change in self.changes:
            if change > 0 and key not in without:
                alive[key] = change
            elif change < 0:
                alive.pop(key, None)
            if (now := sum(alive.values())) > most:
                largest, most = alive.copy(), now
        return largest

    def launches(self) -> dict[str, Counter[str]]:
        """So far, by kind and name."""
        return {"Triton": self.triton.copy(), "products": self.products.copy(), "others": self.others.copy()}


class _Mode(TorchDispatchMode):
    """Runs what is called as if on a GPU, and fills in a `Trace`."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function._schema.name.split("::")[1], kwargs or {}
        if body := _bodies().get(function._schema.name):
            with self:  # an operation of ours: what it does counts, not the shapes that it promises
                return body(*args, **kwargs)
        with self:
            if (result := function.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        before = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = _as_on_gpu(function, name, args, kwargs)
        new = [tensor for tensor in _tensors(result) if tensor.untyped_storage()._cdata not in before]
        for tensor in new:
            self.trace.key(tensor, name)
        if name in PRODUCTS:
            self.trace.products[name] += 1
        elif (new or function._schema.is_mutable) and name not in _FREE:
            self.trace.others[name] += 1
        return result


def _as_on_gpu(function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator's result: worked out where all is small, else of the right shape only."""
    if name in _FACTORIES:
        shape = function(*args, **{**kwargs, "device": "meta"})
        result = function(*args, **{**kwargs, "device": "cpu"}) if shape.numel() <= _SMALL else shape
    elif all(tensor.device.type == "cpu" for tensor in _tensors((args, kwargs))):
        result = function(*args, **kwargs)
    elif function._schema.is_mutable:
        return kwargs.get("out", args[0])
    elif name == "mm":  # whose float32 sum of bfloat16 is known to CUDA only
        return args[0].new_empty(len(args[0]), args[1].shape[1], dtype=args[2] if len(args) > 2 else None)
    else:
        result = function(*_without_memory(args), **_without_memory(kwargs))
        if any(returned.alias_info for returned in function._schema.returns):
            return result
        return tree_map_only(Tensor, lambda new: torch.ones_like(new, device="cpu") if new.numel() <= _SMALL else new, result)
    return result.fill_(1) if "empty" in name and result.device.type == "cpu" else result


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _without_memory(values: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), values)


@functools.cache
def _bodies() -> dict[str, Callable[..., Any]]:
    """The code of our custom operators by name."""
    found = {}
    for operation in OPERATIONS:
        module = importlib.import_module(f"polaris_kernels.{operation}.function")
        custom = [value for value in vars(module).values() if isinstance(value, torch.library.CustomOpDef)]
        found |= {operator._qualname: operator._init_fn for operator in custom}
    return found


@contextlib.contextmanager
def traced(*inputs: Tensor) -> Iterator[Trace]:
    """Calls inside run as on an H200, without their arithmetic; `inputs` are not counted."""
    trace = Trace()
    for tensor in inputs:
        trace.key(tensor)

    def launch(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        trace.triton[kernel.fn.__name__] += 1

    replacements = {
        "uses_triton": lambda tensor: True,
        "may_look": lambda values: False,
        "check_plain": lambda **tensors: None,  # ours lie on two devices
        "product_operand": lambda matrix: matrix,
        "_device": lambda index: ("sm_90", 132),
    }
    with contextlib.ExitStack() as stack:
        for operation in OPERATIONS:
            importlib.import_module(f"polaris_kernels.{operation}.tiled")
        for module in [module for name, module in sys.modules.items() if name.startswith("polaris_kernels.")]:
            for name in replacements.keys() & vars(module).keys():
                stack.enter_context(mock.patch.object(module, name, replacements[name]))
        for kind in (JITFunction, InterpretedFunction):
            stack.enter_context(mock.patch.object(kind, "run", launch))
        stack.enter_context(mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()))  # knows no meta tensors
        stack.enter_context(_Mode(trace))
        yield trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A call's trace; the keys and bytes of the gradients that it returned; what its forward launched."""

    trace: Trace
    gradients: dict[int, int]
    forward: dict[str, Counter[str]]

    @property
    def total(self) -> int:
        """Bytes beyond the inputs at the peak."""
        return sum(self.trace.peak().values())

    @property
    def beside_gradients(self) -> int:
        """The same at the peak of all but the tensors that are returned as gradients."""
        return sum(self.trace.peak(self.gradients).values())

    def backward(self) -> dict[str, Counter[str]]:
        return {kind: counts - self.forward[kind] for kind, counts in self.trace.launches().items()}


def trace(operation: str, rows: int, added: bool = False) -> Found:
    """Forward and backward of an operation as its benchmark calls it: dapo, all tokens learn; log-probs get gradients, entropies none.

    The gradient of the weight is returned or, with `added`, added to a `main_grad`, which is no memory of the call's.
    """
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": "meta", "requires_grad": True}
    hidden, weight = torch.empty(rows, SIZE, **options), torch.empty(VOCABULARY, SIZE, **options)
    logits = torch.empty(rows, VOCABULARY, **options)
    main_grad = torch.empty(VOCABULARY, SIZE, device="meta") if added else None
    targets, values = torch.ones(rows, dtype=torch.long), torch.ones(rows)
    logprob = torch.zeros(rows, requires_grad=True)
    leaves = {"logprob_from_logits": [logits], "policy_loss": [logprob]}.get(operation, [hidden, weight])
    loss_options: dict[str, Any] = {"proximal_logprob": values}
    calls: dict[str, Callable[[], Tensor]] = {
        "linear_logprob": lambda: linear_logprob(hidden, weight, targets, temperature=0.8, main_grad=main_grad)[0],
        "linear_policy_loss": lambda: linear_policy_loss(
            hidden, weight, targets, values, values, None, float(rows), temperature=0.8, main_grad=main_grad, **loss_options
        )[0],
        "linear_logprob, policy_loss": lambda: policy_loss(
            linear_logprob(hidden, weight, targets, temperature=0.8)[0], values, values, None, float(rows), **loss_options
        )[0],
        "logprob_from_logits": lambda: logprob_from_logits(logits, targets, 0.8)[0],
        "policy_loss": lambda: policy_loss(logprob, values, values, None, float(rows), **loss_options)[0],
    }
    with traced(hidden, weight, logits, targets, values, logprob, *([] if main_grad is None else [main_grad])) as found:
        result = calls[operation]()
        forward = found.launches()
        gradients = torch.autograd.grad(result, leaves, values if result.ndim else None, allow_unused=added)
        returned = {found.key(g): g.nbytes for g in gradients if g is not None}
        return Found(trace=found, gradients=returned, forward=forward)


def _peaks() -> Iterator[str]:
    yield "| operation | T | beyond inputs | gradients | beyond both | without the returned tensors | at the peak |\n" + "|---" * 7 + "|"
    for operation, added in [*((case, False) for case in CASES), *((case, True) for case in CASES[:2])]:
        for rows in ROWS:
            found = trace(operation, rows, added)
            peak, gradients = found.trace.peak(), sum(found.gradients.values())
            largest = sorted(((size, found.trace.made[key]) for key, size in peak.items()), reverse=True)
            parts = ", ".join(f"{_gb(size)} {made}" for size, made in largest[:8] if size > 0.005 * found.total)
            figures = (found.total, gradients, found.total - gradients, found.beside_gradients)
            yield f"| {operation}{', main_grad' if added else ''} | {rows:,} | " + " | ".join(map(_gb, figures)) + f" | {parts} |"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}" if size > 1e7 else f"{size / 1e9:.5f}"


def _launches(rows: int) -> Iterator[str]:
    yield "| operation | direction | Triton | products | others of torch |\n" + "|---" * 5 + "|"
    for operation in CASES:
        found = trace(operation, rows)
        for direction, launches in (("forward", found.forward), ("backward", found.backward())):
            cells = [", ".join(f"{count} {name}" for name, count in launches[kind].items()) or "0" for kind in ("Triton", "products")]
            yield f"| {operation} | {direction} | {' | '.join(cells)} | {launches['others'].total()} |"


def main() -> None:
    print(f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}\n\nPeak memory, GB\n")
    for line in _peaks():
        print(line)
    print("\nLaunches at T = 40,960\n")
    for line in _launches(40_960):
        print(line)


if __name__ == "__main__":
    main()
