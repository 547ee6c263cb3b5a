"""Doors: the names in a configuration behind which a user's own code stands, written `module:name`.

The module is looked for in the folder of the configuration's file, then on Python's path. `placed` writes that folder in front of the
name (`/home/me/project:mine:reward`), so that the name alone leads every process to the same code.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import blake2b
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from polaris.errors import Refused, RunFailed
from polaris.stop import Stopped

_OURS = ("embedded", "reasoning_gym")
"""`embedded:model` (`polaris.embedded`) and `reasoning_gym:gcd` (`polaris.reward.gym_task`) are ours."""
GYM = "reasoning_gym:"


def is_own(name: str) -> bool:
    """Whether a name is a user's (`module:name`) and not one of ours."""
    module, colon, attribute = name.rpartition(":")
    parts = [*module.rpartition(":")[2].split("."), attribute]
    return bool(colon) and module not in _OURS and all(part.isidentifier() for part in parts)


def is_gym(path: str) -> bool:
    """Whether a prompt set is a task of reasoning-gym."""
    return path.startswith(GYM)


def placed(name: str, folder: Path) -> str:
    """The name, with `folder` in front where it is a user's and its module lies there."""
    own = is_own(name) and name.count(":") == 1
    return f"{folder.absolute()}:{name}" if own and _file(folder, name.partition(":")[0]) else name


def short(name: str) -> str:
    """The name as the user wrote it: `module:name`."""
    return ":".join(name.rsplit(":", 2)[-2:]) if is_own(name) else name


def load(name: str, key: str) -> Any:
    """What stands behind `module:name`. A file that was edited since it was loaded is loaded again.

    Raises:
        Refused: naming `key`, if there is no such module or name, or the module does not load.
    """
    return _attribute(_module(name, key), name.rpartition(":")[2], name, key)


def digest(name: str, key: str) -> str:
    """32 hexadecimal digits of the source of the module behind `name`, by which a resumed run sees that it was edited."""
    return _digest(_module(name, key))


def _module(name: str, key: str) -> ModuleType:
    if not is_own(name):
        raise Refused(f"{key} = {name!r} names no code; write module:name, such as mine:{key.rpartition('.')[2]} for a file mine.py")
    place, _, module = name.rpartition(":")[0].rpartition(":")
    file = _file(Path(place), module) if place else None
    if place and file is None:
        raise Refused(f"{key} = {short(name)!r}: {place} no longer holds {module.replace('.', '/')}.py; put it back, or correct the name")
    if file is not None:
        _refuse_shadow(module, file, name, key)
    if place and sys.path[0] != place:
        sys.path[:] = [place, *(entry for entry in sys.path if entry != place)]
    loaded = sys.modules.get(module)
    if loaded is not None and file is not None and (_source(loaded) != file or vars(loaded).get("__digest__") != _digest(loaded)):
        del sys.modules[module]
    importlib.invalidate_caches()
    try:
        with _without_bytecode():
            loaded = importlib.import_module(module)
    except Stopped:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            if module.endswith(".py"):
                wanted = f"{module.removesuffix('.py')}:{short(name).rpartition(':')[2]}"
                raise Refused(f"{key} = {short(name)!r} names a file; write the module's name, without .py: {wanted}") from error
            raise Refused(
                f"{key} = {short(name)!r}: there is no module {module!r} beside the configuration's file or on Python's path; put "
                f"{module.replace('.', '/')}.py into the folder of the configuration, or correct the name"
            ) from error
        raise _broken(name, key, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, key, error) from error
    if file is not None:
        vars(loaded)["__digest__"] = _digest(loaded)
    return loaded


def _refuse_shadow(module: str, file: Path, name: str, key: str) -> None:
    """Raise `Refused` for a file with the name of a module of Python or of an installed one: whoever imports that would get the file."""
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if module in sys.stdlib_module_names or ("." not in module and PathFinder.find_spec(module, installed) is not None):
        raise Refused(f"{key} = {short(name)!r}: {file.name} has the name of a module that Python or Polaris may import; rename the file")


@contextmanager
def calling(name: str, key: str, what: str) -> Iterator[None]:
    """Around a call of a user's own code: whatever it raises ends the run with its traceback, naming `key`, `name` and `what` was called.

    Raises:
        RunFailed: in the place of any other exception.
    """
    try:
        yield
    except (RunFailed, Stopped):
        raise
    except (Exception, SystemExit) as error:  # a rank that only left would let the others wait
        said = f"{key} = {short(name)!r}: {what} failed; mend it, and the same command goes on"
        raise RunFailed(f"{said}\n{trace_of(error).rstrip()}") from error


def trace_of(error: BaseException) -> str:
    """The traceback of what a user's code raised, in lines; without the first frame, which is ours."""
    own = traceback.extract_tb(error.__traceback__)[1:]
    return "".join(traceback.format_list(own) + traceback.format_exception_only(error))


def last_line_of(error: BaseException) -> str:
    """What a user's code raised, and where, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def check_call(function: Any, said: str, *arguments: Any, **keywords: Any) -> None:
    """Raise `Refused`, `said` and then why, unless a user's function can be called with such arguments; it is not called."""
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError as error:
        raise Refused(f"{said}{error}") from error


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Python would take its cached bytecode for a file that was edited within the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _broken(name: str, key: str, error: Exception | SystemExit) -> Refused:
    return Refused(f"{key} = {short(name)!r} does not load: {last_line_of(error)}; mend that")


def _attribute(module: ModuleType, attribute: str, name: str, key: str) -> Any:
    if not hasattr(module, attribute):
        close = get_close_matches(attribute, vars(module), n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "define it there, or correct the name"
        raise Refused(f"{key} = {short(name)!r}: {_source(module) or module.__name__} has no {attribute!r}; {remedy}")
    return getattr(module, attribute)


def _file(folder: Path, module: str) -> Path | None:
    """The file of a module in a folder; None if it is not there."""
    path = folder.absolute().joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _source(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _digest(module: ModuleType) -> str:
    file = _source(module)
    return blake2b(file.read_bytes() if file and file.is_file() else b"", digest_size=16).hexdigest()
