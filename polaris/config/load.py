"""TOML file and `--section.key=value` overrides -> RunConfig; resolved JSON beside the run."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from polaris.config.data import SetConfig
from polaris.config.job import JobConfig
from polaris.config.model import ModelConfig
from polaris.config.names import instead, nearest, shown
from polaris.config.own_code import with_names
from polaris.config.peers import ABSENT, ELSEWHERE, SFT_ELSEWHERE
from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig, is_sft
from polaris.config.toml import read_toml
from polaris.doors import placed, short
from polaris.errors import Refused
from polaris.results import differences

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
QUICKSTART = CONFIGS / "quickstart.toml"

Job = TypeVar("Job", bound=JobConfig)

FLAGS = ("fresh", "change", "from", "with-optimizer", "dry-run", "version")
"""Options of `polaris train` that are no fields."""


def command_of(job: type) -> str:
    """The command that reads such a configuration."""
    return "sft" if job is SftConfig else "train"


class _Text(str):
    """A value from the command line: text as it stands, or TOML where the field is not text."""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the TOML file, with command-line overrides such as `--rollout.temperature=0.8` in the place of its values.

    Raises:
        Refused: the file is missing or no TOML, or a key is unknown, of the wrong type or out of bounds.
    """
    config = load_job(RunConfig, path, overrides)
    config.check_new()
    _refuse_idle(config, overrides)
    return config


def load_job(kind: type[Job], path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """The same for the configuration of any kind of job. Raises `Refused` as `load_config`."""
    if isinstance(overrides, str):
        raise Refused(f'overrides are a list: load_config(path, ["{overrides}"])')
    path = Path(path)
    if path.is_dir():
        raise Refused(f"{path} is a folder; give the configuration (.toml), by which a run is also resumed")
    if not path.is_file():
        raise Refused(f"config file {path} does not exist; {CONFIGS} has the ones that ship with Polaris")
    values = read_toml(path)
    _apply(values, overrides, kind)
    config = with_names(_build(kind, values, str(path), kind), lambda name: placed(name, path.parent))
    return dataclasses.replace(config, model=_with_template(config.model, path.parent))


def _with_template(model: ModelConfig, folder: Path) -> ModelConfig:
    """The section with the text of its chat template, which may be given as a file. Raises `Refused` for a file that is not there."""
    given = model.chat_template
    if given is None or "{" in given:
        return model
    file = folder / Path(given).expanduser()
    if not file.is_file():
        raise Refused(f"model.chat_template = {given!r}: there is no file {file}, and a template's text has {{{{ }}}} in it; correct it")
    return dataclasses.replace(model, chat_template=file.read_text(encoding="utf-8"))


def _refuse_idle(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise `Refused` for an override of a value that no stage uses."""
    own = {
        "--trainer.steps": "steps",
        "--rollout.temperature": "temperature",
        "--rollout.max_response_tokens": "max_response_tokens",
        "--eval.temperature": "eval_temperature",
    }
    for name in {override.partition("=")[0] for override in overrides} & own.keys():
        if config.stage and all(getattr(stage, own[name]) is not None for stage in config.stage):
            raise Refused(f"{name} has no effect: every [[stage]] has its own; write --stage.0.{own[name]}=value for the first")


def describe_fields() -> str:
    """Every field with its type, default and meaning, for `--help`."""
    stage, sets = (_describe(kind, "tables").partition("\n\n")[2] for kind in (StageConfig, SetConfig))
    run = describe_job(RunConfig)
    return (
        f"{run}\nEach [[stage]] table; on the command line --stage.0.steps=50 for the first:\n\n{stage}"
        f"\nEach [[data.sets]] table; on the command line --data.sets.0.weight=2 for the first:\n\n{sets}"
    )


def describe_job(kind: type[JobConfig]) -> str:
    """Every field of such a configuration that is in no list of tables."""
    described = _describe(kind, f"polaris.{command_of(kind)} {'[CONFIG]' if kind is RunConfig else 'CONFIG'}")
    return described + "\nWhere the default is None, the file leaves the key out; --section.key=none takes the file's value back.\n"


def _describe(kind: type, prog: str) -> str:
    import tyro

    return tyro.extras.get_parser(kind, prog=prog, use_underscores=True, config=(tyro.conf.FlagConversionOff,)).format_help()


def dump_config(config: JobConfig) -> str:
    """Every field, as JSON; a user's own code by the name that the user wrote."""
    return json.dumps(dataclasses.asdict(with_names(config, short)), indent=2) + "\n"


_ZERO = ("correction_low", "success_above", "drop_up_to")
"""Settings that may be left out, and whose 0 is a value."""


def read_dumped(values: dict[str, Any], path: str) -> RunConfig | SftConfig:
    """Inverse of `dump_config`, after JSON; a field that is newer than the record has its default. Raises `Refused`, naming `path`."""
    kind = SftConfig if is_sft(values) else RunConfig
    return _build(kind, _renewed(kind, _moved(values)), path, kind)


def _moved(values: dict[str, Any]) -> dict[str, Any]:
    """A record of a version before `[memory]`."""
    model = dict(values.get("model", {}))
    if "gradient_checkpointing" not in model:
        return values
    activations = "recompute" if model.pop("gradient_checkpointing") else "keep"
    return {**values, "model": model, "memory": {"activations": activations}}


def _renewed(hint: Any, value: Any, name: str = "") -> Any:
    """A recorded value, in which an older version wrote 0 or "" for None, or for the word that may now stand in a number's place."""
    members = get_args(hint)
    if isinstance(value, list):
        return [_renewed(members[0] if members else None, item) for item in value]
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return {key: _renewed(get_type_hints(hint).get(key), item, key) for key, item in value.items()}
    if value not in (0, "") or isinstance(value, bool) or name in _ZERO:
        return value
    words = [None] if type(None) in members else _words(members)
    return words[0] if words else value


def changed_fields(config: JobConfig, recorded: str) -> list[str]:
    """Fields, as `section.key: old -> new`, in which a config differs from one recorded by `dump_config`."""
    return differences(json.loads(recorded), json.loads(dump_config(config)))


def _apply(values: dict[str, Any], overrides: Sequence[str], kind: type) -> None:
    """Put `--section.key=value` (or `--section.key value`) into the tables of a TOML file."""
    rest = list(overrides)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not name.startswith("--"):
            written = f"--{name}={text}" if equals else "--section.key=value (one CONFIG comes first)"
            raise Refused(f"{name!r} is no override; write {written}")
        if name[2:] in FLAGS:
            raise Refused(f"{name} belongs to `polaris {command_of(kind)}`, which says with --help what it does")
        if name == "--config":
            raise Refused("--config is unknown; the configuration is the first argument, as in `polaris train my.toml --trainer.steps=50`")
        if name in ("--resume", "--resume_from_checkpoint"):
            raise Refused(f"{name} is unknown; starting the same command again resumes the run, and --change lets values differ")
        if "." not in name and name[2:] not in get_type_hints(kind) and (flag := nearest(name[2:], FLAGS)):
            raise Refused(f"{name} is unknown; did you mean '--{flag}'?")
        if not equals and not rest:
            if name[2:].partition(".")[0] not in get_type_hints(kind):
                raise Refused(f"{name} is unknown; {_instead(name[2:], get_type_hints(kind), kind)}")
            raise Refused(f"{name} has no value; write {name}=value")
        *sections, field = name[2:].split(".")
        table: Any = values
        for section in sections:
            table = _enter(table, section, name)
        if not isinstance(table, dict):
            raise Refused(f"{name}: {sections[-1]!r} is a list of tables; write --{'.'.join(sections)}.0.{field}=value for the first")
        table[field] = _Text(text if equals else rest.pop(0))


def _enter(table: Any, section: str, name: str) -> Any:
    """The table below `section`, which is a number in a list of tables; one that is not there yet is made."""
    if isinstance(table, dict):
        table = table.setdefault(section, {})
    elif section.isdecimal() and int(section) < len(table):
        table = table[int(section)]
    else:
        raise Refused(f"{name}: there is no table {section}; the file has {len(table)}, counted from 0")
    if not isinstance(table, dict) and not (isinstance(table, list) and all(isinstance(item, dict) for item in table)):
        raise Refused(f"{name}: {section!r} holds no fields; see --help for the names")
    return table


def _build(kind: type, values: dict[str, Any], path: str, job: type, prefix: str = "") -> Any:
    """The section, or the whole configuration, of a `job`'s configuration."""
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        where = f"--{prefix}{key}" if _overridden(value) else f"{path}: {prefix}{key}"
        if key not in hints:
            raise Refused(f"{where} is unknown; {_instead(key, hints, job, value)}")
        hint = hints[key]
        if get_origin(hint) is tuple and dataclasses.is_dataclass(get_args(hint)[0]):
            arguments[key] = _build_list(get_args(hint)[0], value, path, job, f"{prefix}{key}", where)
        elif not dataclasses.is_dataclass(hint):
            arguments[key] = _convert(hint, value, where)
        elif isinstance(value, dict):
            arguments[key] = _build(hints[key], value, path, job, f"{prefix}{key}.")
        else:
            raise Refused(f"{where} is a table; write it as [{prefix}{key}] with its fields below, or --{prefix}{key}.key=value")
    return kind(**arguments)


def _overridden(value: Any) -> bool:
    return isinstance(value, _Text) or (isinstance(value, dict) and any(map(_overridden, value.values())))


def _instead(key: str, here: Collection[str], job: type, value: Any = None) -> str:
    """What TRL or verl mean by it; else the nearest field of the section; else of another section. `value` is what was given for it."""
    name = key.lower().replace("-", "_")
    elsewhere = ELSEWHERE | (SFT_ELSEWHERE if job is SftConfig else {})
    if name in elsewhere:
        return f"here it is {elsewhere[name]}"
    if name in ABSENT:
        return f"Polaris has no {ABSENT[name]}; docs/limits.md says what to use instead"
    if job is SftConfig and name in get_type_hints(RunConfig).keys() - get_type_hints(job).keys():
        return "that is a section of `polaris train`, and `polaris sft` has none; remove it, or see `polaris sft --help`"
    if (close := nearest(key, here)) is not None:
        return f"did you mean {close!r}?"
    if isinstance(value, dict) and value:
        path = []
        while isinstance(value, dict) and value:
            inner, value = next(iter(value.items()))
            path.append(inner)
        return f"its {'.'.join(path)}: {_instead(inner, (), job)}"
    sections = {name: get_type_hints(kind) for name, kind in get_type_hints(job).items() if dataclasses.is_dataclass(kind)}
    fields = {field: f"{section}.{field}" for section, hints in reversed(sections.items()) for field in hints}
    close = name if name in fields else nearest(name, fields, 0.75)
    if close is not None:
        return f"did you mean {fields[close]!r}?"
    if (close := nearest(name, elsewhere, 0.75)) is not None:
        return f"here {close} is {elsewhere[close]}"
    return instead(key, here, f"`polaris {command_of(job)} --help`")


def _build_list(kind: Any, value: Any, path: str, job: type, key: str, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(f"{where} is a list of tables; write each as [[{key}]] with its fields below")
    return tuple(_build(kind, item, path, job, f"{key}.{index}.") for index, item in enumerate(value))


def _convert(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        return _convert_items(get_args(hint), _parse(value) if isinstance(value, _Text) else value, where)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words, optional = _words(members), type(None) in members
    accepted = tuple(member for member in members if get_origin(member) is not Literal)
    if optional and isinstance(value, _Text) and value.lower() == "none":
        return None
    if optional and value == "":
        raise Refused(f"{where} is empty; {f'write {where}=none' if isinstance(value, _Text) else 'leave it out'}")
    if isinstance(value, _Text):
        value = str(value) if choices or value in words or set(accepted) <= {str, type(None)} else _parsed(value, accepted)
    if value in words:
        return value
    tables = [member for member in accepted if get_origin(member) is dict]
    if tables and isinstance(value, dict):
        return {key: _convert(get_args(tables[0])[1], item, f"{where}.{key}") for key, item in value.items()}
    accepted = tuple(get_origin(member) or member for member in accepted)
    if choices:
        if value not in choices:
            raise Refused(f"{where} = {shown(value)} is not one of {', '.join(map(repr, choices))}")
        return value
    if float in accepted and int not in accepted and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join([kind.__name__ for kind in accepted if kind is not type(None)] + [repr(word) for word in words])
        raise Refused(f"{where} = {shown(value)} must be of type {names}{', or left out' if optional else ''}")
    return _settled(value) if isinstance(value, list) else value


def _settled(value: Any) -> Any:
    """A list, in whose tables texts of the command line are what they stand for in TOML."""
    if isinstance(value, _Text):
        return _parsed(value, (bool, int, float, str, list, dict))
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    return [_settled(item) for item in value] if isinstance(value, list) else value


def _words(members: tuple[Any, ...]) -> list[str]:
    """The texts that the Literals among the members of a union name."""
    return [word for member in members if get_origin(member) is Literal for word in get_args(member)]


def _convert_items(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """A TOML array as a tuple: of any length for `tuple[kind, ...]`, else with one item per kind."""
    if not isinstance(value, list):
        raise Refused(f"{where} = {shown(value)} must be a list; write [...] around its items, texts in quotes")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise Refused(f"{where} = {shown(value)} must have {len(kinds)} items")
    return tuple(_convert(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _parsed(text: str, accepted: tuple[Any, ...]) -> Any:
    """The value that a text of the command line stands for; the text itself where a text may stand and no value of another kind fits."""
    value = _parse(text)
    return text if str in accepted and not isinstance(value, tuple(kind for kind in accepted if get_origin(kind) is None)) else value


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text.lower() if text in ('True', 'False') else text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(text)
