"""Replace a function of another package by one that wraps it, and put it back; only for versions that were tested."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

_originals: dict[tuple[str, str], Any] = {}


def require_version(package: str, known: tuple[str, ...]) -> None:
    """Raise ImportError unless `package` is installed in one of the `known` versions."""
    names = " or ".join(f"{package}=={v}" for v in known)
    try:
        found = version(package)
    except PackageNotFoundError:
        raise ImportError(f"{package} is not installed; polaris_kernels was tested with {names}") from None
    if found not in known:
        raise ImportError(f"polaris_kernels was not tested with {package} {found}, and nothing was patched; install {names}")


def swap(module: ModuleType, name: str, wrap: Callable[[Any], Any]) -> None:
    """Set `module.name` to `wrap(original)`; a second call changes nothing."""
    key = (module.__name__, name)
    if key not in _originals:
        _originals[key] = getattr(module, name)
        setattr(module, name, wrap(_originals[key]))


def swap_back(module: ModuleType, name: str) -> None:
    """Undo `swap`; without one, nothing happens."""
    key = (module.__name__, name)
    if key in _originals:
        setattr(module, name, _originals.pop(key))
