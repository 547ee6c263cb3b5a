"""GPU tests skip without a device, and Triton's interpreter then runs the kernels on the CPU."""

import functools
import importlib
import os
from typing import Any

import numpy as np
import pytest
import torch


def mend_products_of_bfloat16() -> None:
    """Triton's interpreter multiplies the bits of bfloat16 as integers (3.6 to 3.9): give it their values."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot = InterpreterBuilder.create_dot

    def values(operand: TensorHandle) -> TensorHandle:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot_of_values(builder: InterpreterBuilder, left: TensorHandle, right: TensorHandle, *rest: Any) -> TensorHandle:
        return dot(builder, values(left), values(right), *rest)

    InterpreterBuilder.create_dot = dot_of_values


def patch_the_language_once() -> None:
    """Triton's interpreter patches its language at every call of a function within a kernel too, which takes half of its time: see
    whether it is patched already."""
    import triton.language as tl
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def patch_once(function: Any) -> Any:
        seen = [value for value in function.__globals__.values() if value is tl or value is tl.core]
        if seen and not any(tl.core.is_builtin(language.load) for language in seen):
            return interpreter._LangPatchScope()
        return patch(function)

    interpreter._patch_lang = patch_once


def remember_types() -> None:
    """Triton's interpreter makes the type of every result anew, also where both operands have its shape, which takes a third of the
    rest: make each once, and nothing for operands of one shape."""
    import triton.language as tl
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    known: dict[tuple[Any, tuple[int, ...]], Any] = {}
    broadcast, numpy_dtype = TritonSemantic.broadcast_impl_value, interpreter._get_np_dtype
    numpy_dtype_of_values = functools.cache(numpy_dtype)

    def block(scalar: Any, shape: Any) -> Any:
        if scalar.is_ptr():  # it has no hash
            return tl.block_type(scalar, shape)
        key = scalar, tuple(shape)
        if key not in known:
            known[key] = tl.block_type(scalar, shape)
        return known[key]

    def broadcast_unless_alike(semantic: TritonSemantic, left: Any, right: Any) -> tuple[Any, Any]:
        if left.type.is_block() and right.type.is_block() and [*left.type.shape] == [*right.type.shape]:
            return left, right
        return broadcast(semantic, left, right)

    tl.block_type.with_element_ty = lambda self, scalar: block(scalar, self.shape)
    interpreter.InterpreterBuilder.get_block_ty = lambda self, dtype, shape: block(dtype, shape)
    interpreter._get_np_dtype = lambda dtype: (numpy_dtype if dtype.scalar.is_ptr() else numpy_dtype_of_values)(dtype.scalar)
    TritonSemantic.broadcast_impl_value = broadcast_unless_alike


if not torch.cuda.is_available():
    # Triton asks this variable when a kernel is decorated, that is here; programs that tests start must not inherit it.
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.experimental.gluon")
    for operation in ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss"):
        importlib.import_module(f"polaris_kernels.{operation}.tiled")
    del os.environ["TRITON_INTERPRET"]
    mend_products_of_bfloat16()
    patch_the_language_once()
    remember_types()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
