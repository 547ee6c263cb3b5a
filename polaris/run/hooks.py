"""The user's own hooks (`run.hooks`): found, checked and called; what they may hear is in `polaris.observe.hook`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from polaris.config.names import instead
from polaris.config.schema import RunConfig
from polaris.doors import calling, check_call, load, short
from polaris.errors import Refused, RunFailed
from polaris.observe.hook import METHODS, Hook
from polaris.types import Group

KEY = "run.hooks"


def check_hooks(names: Iterable[str]) -> None:
    """Raise `Refused` unless each name is a class with methods of `Hook`, which take what they will be called with. None is made."""
    for name in names:
        hook = load(name, KEY)
        if not inspect.isclass(hook):
            raise Refused(f"{KEY}: {short(name)!r} is no class; write a class with methods such as on_step(self, record, groups)")
        found = [method for method in dir(hook) if method.startswith("on_")]
        if unknown := [method for method in found if method not in METHODS]:
            raise Refused(f"{KEY}: {short(name)!r} has {unknown[0]}, which nothing calls; {instead(unknown[0], METHODS, '')}")
        if not found:
            raise Refused(f"{KEY}: {short(name)!r} hears of nothing; give it one of {', '.join(METHODS)}")
        for method in found:
            wanted = list(inspect.signature(getattr(Hook, method)).parameters)
            said = f"{KEY}: {short(name)!r} is called as {method}({', '.join(wanted)}), but it has "
            check_call(getattr(hook, method), said, *wanted)


def load_hooks(names: Iterable[str]) -> dict[str, Any]:
    """The hooks by their names, in order. Raises `RunFailed` if one cannot be made."""
    hooks = {}
    for name in names:
        with calling(name, KEY, "making it"):
            hooks[name] = load(name, KEY)()
    return hooks


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a run, by name; none on other ranks than the first. An exception in one is `RunFailed`, with its traceback."""

    hooks: Mapping[str, Any]

    def on_start(self, config: RunConfig, folder: Path, next_step: int) -> None:
        self._tell("on_start", config, folder, next_step)

    def on_step(self, record: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, float]:
        """What the hooks add to the record: their numbers, as `hook/<name>`."""
        return self._tell("on_step", MappingProxyType(dict(record)), tuple(groups))

    def on_evaluate(self, record: Mapping[str, Any]) -> dict[str, float]:
        """As `on_step`."""
        return self._tell("on_evaluate", MappingProxyType(dict(record)))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._tell("on_checkpoint", step, folder)

    def on_stop(self, why: str) -> None:
        self._tell("on_stop", why)

    def _tell(self, method: str, *arguments: Any) -> dict[str, float]:
        added: dict[str, float] = {}
        for name, hook in self.hooks.items():
            if not hasattr(hook, method):
                continue
            with calling(name, KEY, method):
                answer = getattr(hook, method)(*arguments)
                numbers = {f"hook/{key}": float(value) for key, value in dict(answer or {}).items()}
            if twice := added.keys() & numbers.keys():
                raise RunFailed(f"{KEY}: two hooks return {min(twice).removeprefix('hook/')!r} from {method}; rename it in one of them")
            added |= numbers
        return added
