"""The names under which operations are registered with torch: one namespace for each copy of this package in a process.

The installed package, a copy inside a trainer and one that the Hugging Face kernels hub loads under a name of its own may meet in one
process, where torch refuses a name twice. The hub's builder replaces this file by one with the same function.
"""

from __future__ import annotations

_NAMESPACE = __name__.removesuffix("._ops").replace(".", "_")


def add_op_namespace_prefix(op_name: str) -> str:
    """The operation's full name, `polaris_kernels::linear_logprob` for "linear_logprob" in the installed package."""
    return f"{_NAMESPACE}::{op_name}"
