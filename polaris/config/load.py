"""TOML file and `--room.field=value` overrides -> RunConfig; resolved JSON beside the run."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from polaris.config.schema import RunConfig

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"


def load_config(path: Path, overrides: list[str]) -> RunConfig:
    """Read the TOML file, then apply command-line overrides such as `--rollout.temperature=0.8`.

    Raises:
        ValueError: the file is missing or no TOML, or a key is unknown, of the wrong type or out of bounds.
        SystemExit: an override is malformed (status 2, after a message), or `--help` was asked for.
    """
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist; see configs/ for the ones that ship with Polaris")
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    config = _build(RunConfig, values, where=str(path))
    if not overrides:
        return config
    return tyro.cli(RunConfig, prog="polaris.train CONFIG", args=overrides, default=config, config=(tyro.conf.FlagConversionOff,))


def dump_config(config: RunConfig) -> str:
    """Every field, as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def changed_fields(config: RunConfig, recorded: str) -> list[str]:
    """Fields, as `room.field: old -> new`, in which a config differs from one recorded by `dump_config`."""
    old, new = _flatten(json.loads(recorded)), _flatten(json.loads(dump_config(config)))
    return [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(hints)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")
        arguments[key] = _convert(hints[key], value, f"{where}: {key}")
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is a table; write it as [{where.rsplit(' ', 1)[-1]}] with its fields below")
        return _build(hint, value, where)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            raise ValueError(f"{where} = {value!r} is not one of {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (get_origin(hint) or hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(kind.__name__ for kind in accepted)
        raise ValueError(f"{where} = {value!r} must be of type {names}")
    return value
