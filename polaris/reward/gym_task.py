"""A task of reasoning-gym (`reasoning_gym:NAME`) with its options, as the package's own dataset.

Entry `index` of a dataset is a function of the task, its settings and the package's version, so that a grading process makes it again
instead of receiving it: metadata may hold what JSON cannot. Some tasks (isomorphic_strings, knight_swap, polynomial_multiplication,
ransom_note, word_ladder in 0.1.25) walk over sets, whose order is that of Python's hash seed; whoever makes entries sets PYTHONHASHSEED=0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from polaris.config.composite import COMPOSITE, parts, shares
from polaris.config.names import instead, shown
from polaris.doors import GYM
from polaris.errors import Refused

if TYPE_CHECKING:
    from reasoning_gym.coaching.base_curriculum import BaseCurriculum
    from reasoning_gym.dataset import ProceduralDataset

_SIZE = 500
"""Rows of a set that does not say: the package's own default."""
FOOLED = {"coin_flip": "0", "complex_arithmetic": "nan", "game_of_life_halting": "anything"}
"""Tasks whose scorer (0.1.25) gives 1 to the same answer for every problem, which a policy finds, and that answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One dataset: `options` are fields of the task's own configuration, `level` that of its curriculum, None for its defaults.

    The package draws entry n with the generator of its seed plus n, so that the entries of seed 1 are those of seed 0 without the first.
    What it gets as its seed is therefore a digest of ours and the level: other seeds and levels have other entries.
    """

    name: str
    seed: int
    size: int
    level: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drawn_with(self) -> int:
        """The package's seed, below 2**31."""
        return int.from_bytes(blake2b(f"{self.seed}/{self.level}".encode(), digest_size=4).digest(), "big") >> 1


def require_package() -> None:
    """Raise `Refused` where reasoning-gym is not installed."""
    try:
        import reasoning_gym  # noqa: F401
    except ModuleNotFoundError as error:
        raise Refused(
            f'reasoning-gym does not load ({error}); install it: pip install "reasoning-gym>=0.1.25,<0.2", or with Polaris: '
            'pip install "polaris-rl[gym]"'
        ) from error


def dataset(task: Task, key: str = "data.options") -> ProceduralDataset:
    """The package's dataset. Raises `Refused`, naming `key`, for a task, level or option that it does not have."""
    require_package()
    from reasoning_gym.factory import DATASETS

    if task.name == COMPOSITE:
        raise Refused(f"{GYM}{COMPOSITE} is no task and cannot be part of another composite; name the tasks themselves in datasets")
    if task.name not in DATASETS:
        raise Refused(f"{GYM}{task.name} is no task of reasoning-gym; {instead(task.name, DATASETS, 'its GALLERY.md')}")
    if task.name in FOOLED:
        raise Refused(f"{GYM}{task.name} has a scorer that takes {FOOLED[task.name]!r} for right everywhere; train on another task")
    made, settings = DATASETS[task.name]
    given = {name: _as_default(settings, name, value, f"{key}.{name}") for name, value in _known(settings, task, key).items()}
    given |= {"seed": task.drawn_with, "size": task.size}
    configure = settings if task.level is None else partial(_configured, _curriculum(task, key))
    try:
        return made(configure(**given))
    except (AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        options = ", ".join(f"{name} = {shown(value)}" for name, value in given.items())
        raise Refused(f"{GYM}{task.name} cannot have {key} {options} ({_in_words(error)}); correct them") from error


def level_count(name: str) -> int:
    """Number of levels of a task's curriculum: those of its attribute with the most; an attribute with fewer stays at its last one.
    0 for a task without a curriculum."""
    require_package()
    from reasoning_gym.factory import CURRICULA

    return max((len(one.levels) for one in CURRICULA[name]().attributes.values()), default=0) if name in CURRICULA else 0


def _curriculum(task: Task, key: str) -> BaseCurriculum:
    from reasoning_gym.factory import CURRICULA

    count = level_count(task.name)
    if not count:
        raise Refused(f"{GYM}{task.name} has no curriculum; remove {key}.levels, and set fields of its configuration instead")
    assert task.level is not None
    if not 0 <= task.level < count:
        raise Refused(f"{key}.levels: {GYM}{task.name} has the levels 0 to {count - 1}, and not {task.level}; correct them")
    curriculum = CURRICULA[task.name]()
    curriculum.set_global_level(task.level)
    if both := sorted(task.options.keys() & _set_by(curriculum)):
        decided = ", ".join(sorted(_set_by(curriculum)))
        raise Refused(f"{key}.{both[0]} is set by {key}.levels too, which decide {decided}; keep one of the two")
    return curriculum


def _configured(curriculum: BaseCurriculum, **given: Any) -> Any:
    return curriculum.generate_configuration(given)


def _set_by(curriculum: BaseCurriculum) -> set[str]:
    """Fields of the task's configuration that a level decides."""
    names = ("field_name", "lower_field_name", "upper_field_name")
    return {getattr(one, name) for one in curriculum.attributes.values() for name in names if hasattr(one, name)}


def _known(settings: Any, task: Task, key: str) -> Mapping[str, Any]:
    known = [one.name for one in fields(settings) if one.init and one.name not in ("seed", "size")]
    unknown = next((name for name in task.options if name not in known), None)
    if unknown is not None:
        where = f"{GYM}{task.name} has {', '.join(known) or 'no options of its own'}; levels, size, seed and examples are ours. This list"
        raise Refused(
            f"{key}.{unknown} is unknown to {GYM}{task.name}; {instead(unknown, [*known, 'levels', 'size', 'seed', 'examples'], where)}"
        )
    return task.options


def _as_default(settings: Any, name: str, value: Any, key: str) -> Any:
    """The value in the kind of the field's default, which TOML cannot write: a tuple, or a member of an enumeration."""
    (one,) = (one for one in fields(settings) if one.name == name)
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, Enum):
        try:
            return type(default)(value)
        except ValueError as error:
            words = ", ".join(repr(member.value) for member in type(default))
            raise Refused(f"{key} = {shown(value)} is none of {words}; correct it") from error
    return value


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


def tasks(name: str, options: Mapping[str, Any], key: str) -> Sequence[Task]:
    """The tasks that a set's options make: one, or one for each of `levels`, each with an equal part of `size` (the first ones have one
    more where it does not divide). `composite` makes those of each of its `datasets`, which have parts of `size` by weight.

    Raises:
        Refused: naming `key`, for anything that the task does not take; the datasets are made, without an entry.
    """
    rest = dict(options)
    size, seed = rest.pop("size", _SIZE), rest.pop("seed", 0)
    for word, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Refused(f"{key}.{word} = {shown(value)} must be a whole number from {least}")
    if name != COMPOSITE:
        return _by_level(Task(name=name, seed=seed, size=size, options=rest), key)
    named = parts(rest, key)
    made: list[Task] = []
    for part, rows in zip(named, shares(named, size, key), strict=True):
        made += _by_level(Task(name=part.name, seed=seed, size=rows, options=part.config), part.key)
    return made


def _by_level(task: Task, key: str) -> list[Task]:
    rest = dict(task.options)
    levels = rest.pop("levels", None)
    if levels is not None and (not isinstance(levels, list) or not levels or not all(type(level) is int for level in levels)):
        raise Refused(f"{key}.levels = {shown(levels)} must be a list of numbers, such as [0, 1, 2]")
    wanted = [None] if levels is None else levels
    if len(set(wanted)) < len(wanted) or len(wanted) > task.size:
        raise Refused(
            f"{key}.levels = {shown(levels)} needs different levels, and one row or more for each, of {task.size}; correct them, or raise "
            "the set's size"
        )
    rows = [task.size // len(wanted) + (place < task.size % len(wanted)) for place in range(len(wanted))]
    found = [replace(task, size=share, level=level, options=rest) for level, share in zip(wanted, rows, strict=True)]
    for one in found:
        dataset(one, key)
    return found
