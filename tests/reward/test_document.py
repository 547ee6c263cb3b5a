"""Every example of docs/grader.md is what the document says it is."""

import re
from pathlib import Path

import pytest

from polaris.reward import extract, screen
from polaris.reward.extract import final_answer
from polaris.reward.grade import accepted, grade, ungradable_reason
from polaris.types import Verdict

DOCUMENT = Path(__file__).parents[2] / "docs" / "grader.md"


def rows(*head):
    """Rows of the tables with this head; text in back quotes without them."""
    found, inside = [], False
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        inside = tuple(cells) == head or (inside and bool(cells))
        if inside and tuple(cells) != head and set(cells) != {"---"}:
            found.append([cell.strip("`") if cell.count("`") == 2 else cell for cell in cells])
    assert found
    return found


def verdict(answer, gold, mode="strict"):
    return grade(f"\\boxed{{{answer}}}", gold, require_thinking=False, mode=mode).kind


@pytest.mark.parametrize(("rule", "response", "graded"), rows("rule", "response", "graded"))
def test_extraction(rule, response, graded):
    found = final_answer(response, require_thinking=False)
    assert ("none" if isinstance(found, Verdict) else found) == graded


@pytest.mark.parametrize(("rule", "gold", "accepted", "refused"), rows("rule", "gold", "accepted", "refused"))
def test_rules(rule, gold, accepted, refused):
    assert (verdict(gold, gold), verdict(accepted, gold), verdict(refused, gold)) == ("correct", "correct", "wrong")


@pytest.mark.parametrize(("limit", "largest", "refused"), rows("limit", "largest", "refused"))
def test_screen(limit, largest, refused):
    assert not refused or verdict(refused, "5") == "ungradable"


@pytest.mark.parametrize(("answer", "gold", "strict", "deepscaler"), rows("answer", "gold", "strict", "deepscaler"))
def test_modes(answer, gold, strict, deepscaler):
    assert (verdict(answer, gold), verdict(answer, gold, mode="deepscaler")) == (strict, deepscaler)


@pytest.mark.parametrize(("text", "golds"), rows("in the file", "accepted answers"))
def test_golds(text, golds):
    assert accepted(re.match("`?([^`]+)", text)[1]) == golds.replace("`", "").split(" or ")


@pytest.mark.parametrize(("text", "reason"), rows("no gold answer", "reason"))
def test_what_is_no_gold(text, reason):
    damaged = text.startswith("a form feed")
    assert ungradable_reason("\x0crac{1}{2}" if damaged else text or ()) == reason


def test_python_prints_what_its_comments_say(capsys):
    block = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(block, {})  # the document's own code
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*?\)  # (.+)$", block, re.MULTILINE)


def test_limits_are_those_of_the_code():
    largest = {limit: value for limit, value, _ in rows("limit", "largest", "refused")}
    stated = [
        largest[name] for name in ("characters", "depth of brackets", "digits of a number", "an exponent, a tower counted as its value")
    ]
    assert stated == [f"{limit:,}" for limit in (screen.MAX_CHARS, screen.MAX_DEPTH, screen.MAX_DIGITS, screen.MAX_EXPONENT)]
    assert largest["a factorial, or one of something not simple"] == f"{screen.MAX_FACTORIAL:,}"
    assert f"the last {extract.SEARCHED_CHARS:,} characters" in DOCUMENT.read_text(encoding="utf-8")
