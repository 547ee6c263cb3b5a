"""A module that is called like the function in it that has its name."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """`from polaris import train` gives the module `polaris.train`, whatever was imported before; `train(config)` calls its function."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)
