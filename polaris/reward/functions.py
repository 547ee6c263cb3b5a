"""From a name in `reward.function` and its options to a `Reward`; a plain function of the user's is wrapped into one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from polaris import doors
from polaris.config.names import nearest
from polaris.config.reward import Option, RewardConfig
from polaris.errors import Refused
from polaris.reward.built_in import BUILT_IN
from polaris.reward.protocol import Reward, RewardItem, Rules

KEY = "reward.function"
FIELDS = ("response", "ground_truth", "prompt", "messages", "finish_reason", "length", "limit")
"""What a function may take, besides its options and the columns of the row."""


class Function:
    """A function as a reward. It gets, by name, what its signature takes of `FIELDS`, the row's columns and its options; every column
    where it has `**row`, and all of `FIELDS` too where it names nothing else."""

    def __init__(self, function: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
        parameters = inspect.signature(function).parameters.values()
        named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        self._takes = {one.name for one in named}
        self._takes_row = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if self._takes_row and not named:  # also a function behind a decorator that hides its signature
            self._takes = set(FIELDS)
        unknown = [] if self._takes_row else sorted(options.keys() - self._takes)
        if unknown:
            raise _unknown_option(name, unknown[0], self._takes - set(FIELDS))
        if inspect.iscoroutinefunction(function) or any(one.kind is one.POSITIONAL_ONLY for one in parameters):
            raise Refused(f"{KEY} = {doors.short(name)!r}: write a plain function whose parameters can be given by name")
        self._function, self._options = function, dict(options)
        self.columns = tuple(one.name for one in named if one.default is one.empty and one.name not in {*FIELDS, *options})
        """The row's columns that it cannot be called without."""

    def score(self, items: Sequence[RewardItem]) -> list[Any]:
        return [self._function(**self._arguments(item)) for item in items]

    def _arguments(self, item: RewardItem) -> dict[str, Any]:
        given = {name: value for name, value in item.row.items() if self._takes_row or name in self._takes}
        for name in FIELDS[:2]:  # a column never stands in their place
            given.pop(name, None)
        return given | {name: getattr(item, name) for name in FIELDS if name in self._takes} | self._options


def named(config: RewardConfig) -> tuple[str, ...]:
    """Short names of the rewards that are metrics of their own: all, unless `math` is the only one."""
    return () if config.function == "math" else tuple(map(doors.short, config.weights))


def options_of(config: RewardConfig, name: str) -> Mapping[str, Option]:
    """The options of one reward."""
    return config.options.get(doors.short(name), {})


def build(name: str, options: Mapping[str, Any], rules: Rules) -> Reward | Function:
    """The reward behind a name, made with its options.

    Raises:
        Refused: naming the key, for an unknown name, something that is no reward, or options that it does not take.
        RunFailed: the class of the user's raised.
    """
    if not doors.is_own(name):
        if name not in BUILT_IN:
            close = nearest(name, BUILT_IN)
            remedy = f"did you mean {close!r}?" if close else f"there is {', '.join(BUILT_IN)}, or module:name for your own"
            raise Refused(f"{KEY} = {name!r} is unknown; {remedy}")
        _check_options(BUILT_IN[name], name, options, rules)
        return cast(Reward, BUILT_IN[name](rules, **options))
    found = doors.load(name, KEY)
    if inspect.isclass(found):
        if not callable(getattr(found, "score", None)):
            raise Refused(f"{KEY} = {doors.short(name)!r} is a class without score(items); give it one, or write a function")
        _check_options(found, name, options)
        with doors.calling(name, KEY, "making it"):
            return cast(Reward, found(**options))
    if callable(getattr(found, "score", None)):
        if options:
            raise Refused(f'reward.options."{doors.short(name)}" has no effect on an object that is made already; name its class')
        return cast(Reward, found)
    if not callable(found):
        raise Refused(f"{KEY} = {doors.short(name)!r} is {type(found).__name__}; name a function, or a class with score(items)")
    return Function(found, name, options)


def _check_options(kind: Callable[..., Any], name: str, options: Mapping[str, Any], *first: Any) -> None:
    signature = inspect.signature(kind)
    takes = list(signature.parameters)[len(first) :]
    try:
        signature.bind(*first, **options)
    except TypeError as error:
        unknown = [] if any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()) else sorted(options.keys() - set(takes))
        if unknown:
            raise _unknown_option(name, unknown[0], takes) from error
        raise Refused(f"{_table(name)}: {error}; it takes {', '.join(takes)}") from error


def _unknown_option(name: str, option: str, takes: Any) -> Refused:
    return Refused(f"{_table(name)}.{option} is unknown; {doors.short(name)} takes {', '.join(sorted(takes)) or 'no options'}")


def _table(name: str) -> str:
    return f'reward.options."{doors.short(name)}"' if doors.is_own(name) else f"reward.options.{name}"
