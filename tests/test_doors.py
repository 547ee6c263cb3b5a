"""`module:name`: found beside the configuration, read again when edited, refused with the remedy."""

import sys
from dataclasses import dataclass, field

import pytest

from polaris.config.own_code import DOOR, own_code, with_names
from polaris.doors import calling, digest, is_own, load, placed, short
from polaris.errors import Refused, RunFailed
from polaris.stop import Stopped


@pytest.fixture(autouse=True)
def _modules_and_path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder, text, name="mine"):
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


@pytest.mark.parametrize(("name", "own"), [("mine:f", True), ("a.b:C", True), ("/x/y:a.b:C", True), ("math", False), ("aime24", False)])
def test_own_names_have_a_colon_and_identifiers(name, own):
    assert is_own(name) is own


def test_the_folder_of_the_configuration_is_searched_and_the_name_stays_short(tmp_path):
    module(tmp_path, "VALUE = 7", "pack.mine")
    name = placed("pack.mine:VALUE", tmp_path)
    assert name == f"{tmp_path}:pack.mine:VALUE"
    assert load(name, "reward.function") == 7
    assert short(name) == "pack.mine:VALUE"
    assert placed("json:loads", tmp_path) == "json:loads"
    assert load("json:loads", "reward.function")("1") == 1


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path):
    one, two = (placed("mine:X", module(tmp_path / name, f"X = {name!r}")) for name in ("one", "two"))
    assert [load(name, "k") for name in (one, two, one)] == ["one", "two", "one"]


def test_an_edited_file_is_read_again_and_has_another_digest(tmp_path):
    name = placed("mine:X", module(tmp_path, "X = 1"))
    assert load(name, "k") == 1
    before = digest(name, "k")
    assert digest(name, "k") == before
    module(tmp_path, "X = 2")
    assert load(name, "k") == 2
    assert digest(name, "k") != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:f", "no module 'nowhere' beside the configuration"),
        ("mine.py:reward", "without .py: mine:reward"),
        ("mine:rewrad", "did you mean 'reward'"),
        ("broken:f", "ZeroDivisionError: division by zero .*broken.py, line 2"),
        ("needs:f", "No module named 'not_there'"),
        ("mine", "write module:name"),
        ("leaves:f", "SystemExit: 0 .*leaves.py, line 2"),
        ("types:f", "types.py has the name of a module that Python or Polaris may import; rename the file"),
        ("torch:f", "torch.py has the name of a module"),
    ],
)
def test_what_does_not_load_is_refused_with_the_reason(tmp_path, name, said):
    module(tmp_path, "def reward(): ...")
    module(tmp_path, "\nX = 1 / 0", "broken")
    module(tmp_path, "import not_there", "needs")
    module(tmp_path, "import sys\nsys.exit(0)", "leaves")
    for shadow in ("types", "torch"):
        module(tmp_path, "def f(response): return 1", shadow)
    with pytest.raises(Refused, match=f"reward.function = .*{said}"):
        load(placed(name, tmp_path), "reward.function")


def test_code_that_leaves_is_a_failure_and_a_signal_is_none():
    with (
        pytest.raises(RunFailed, match=r"run.hooks = 'mine:Hook': on_step failed[\s\S]*SystemExit: 3"),
        calling("mine:Hook", "run.hooks", "on_step"),
    ):
        sys.exit(3)
    with pytest.raises(Stopped), calling("mine:Hook", "run.hooks", "on_step"):
        raise Stopped(130)


@dataclass(frozen=True, kw_only=True)
class Inner:
    function: str | dict[str, float] = field(default_factory=lambda: {"mine:f": 1.0, "math": 2.0}, metadata=DOOR)
    other: str = "mine:untouched"


@dataclass(frozen=True, kw_only=True)
class Outer:
    hooks: tuple[str, ...] = field(default=("mine:Hook",), metadata=DOOR)
    inner: Inner = field(default_factory=Inner)
    several: tuple[Inner, ...] = (Inner(function="mine:g"),)


def test_names_are_found_and_changed_in_texts_tuples_and_keys():
    changed = with_names(Outer(), str.upper)
    assert changed.hooks == ("MINE:HOOK",)
    assert changed.inner == Inner(function={"MINE:F": 1.0, "MATH": 2.0})
    assert changed.several[0] == Inner(function="MINE:G")
    assert own_code(Outer()) == {"hooks": ["mine:Hook"], "inner.function": ["mine:f"], "several.0.function": ["mine:g"]}
