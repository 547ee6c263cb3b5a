"""Overlap of problem sets: copies are found through dress, instructions and other wording; stock phrases are not copies."""

import json
import random
import time
from pathlib import Path

import pytest

from polaris.data.evaluation_sets import matches_by_set, read_evaluation_sets
from polaris.data.normalise import INSTRUCTION, exact_key, without_instruction, words_of
from polaris.data.overlap import RUN, find_duplicates, find_matches

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
STOCK = "can be written as $\\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
SENTENCE = "A merchant has one thousand bananas and a camel that eats one banana for every mile that it walks to market"


def overlaps(here, there):
    return [(match.here, match.there, match.exact) for match in find_matches(here, there) if match.overlap]


@pytest.mark.parametrize(
    "other",
    [
        "let $a$  be a number with $$a^{2}=\\frac{1}{2}$$ find $a$",
        "Let\n\\(a\\) be a number with\n\\[a^2 = \\dfrac12.\\] Find $a$!".replace("!", "."),
        "Let $a_{}$ be a number with \\begin{align*} a^2 &= \\tfrac{1}{2} \\end{align*} Find ${a}$.",
    ],
)
def test_dress_does_not_change_the_key(other):
    assert exact_key("Let $a$ be a number with $a^2=\\frac12$. Find $a$.") == exact_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("Find 3+5.", "Find 3-5."), ("Find 5!.", "Find 5."), ("Find 1.5.", "Find 15."), ("Find (1,2).", "Find (12).")]
)
def test_another_problem_has_another_key(one, other):
    assert exact_key(one) != exact_key(other)


def test_words_are_runs_of_letters_and_of_digits():
    assert words_of("$3x^2$ is \\left(\\text{not}\\right) \\dfrac12") == ["3", "x", "2", "is", "not", "frac", "12"]


def test_a_diagram_is_part_of_the_problem_but_may_be_missing():
    drawn = [f"{SENTENCE} [asy] draw({name}); {' '.join(f'{name}{i}' for i in range(80))} [/asy]" for name in ("circle", "square")]
    assert find_duplicates(drawn) == []
    assert overlaps([drawn[0]], [drawn[1]]) == []
    assert overlaps([SENTENCE], drawn) == [(0, 0, False), (0, 1, False)]


def test_a_short_problem_matches_exactly_or_not_at_all():
    short = " ".join(SENTENCE.split()[: RUN - 1])
    assert overlaps([short.upper() + "."], [short]) == [(0, 0, True)]
    assert find_matches([short + " now"], [short]) == []
    assert find_matches([short], [SENTENCE]) == []


def test_thirteen_words_make_a_run():
    words = SENTENCE.split()
    match = find_matches([" ".join(["Once", *words[:RUN], "home"])], [" ".join(words[:RUN])])[0]
    assert (match.runs, match.share, match.exact, match.overlap) == (1, 1.0, False, True)


def test_a_quarter_in_common_is_a_match_but_no_overlap():
    here, there = (" ".join([*SENTENCE.split(), *(f"{side}{i}" for i in range(60))]) for side in ("x", "y"))
    match = find_matches([here], [there])[0]
    assert match.runs == len(SENTENCE.split()) - RUN + 1
    assert match.share < 0.25
    assert not match.overlap


def test_a_problem_inside_a_longer_text_overlaps_from_both_sides():
    longer = f"{SENTENCE}. {' '.join(f'filler{i}' for i in range(80))}"
    assert overlaps([longer], [SENTENCE]) == overlaps([SENTENCE], [longer]) == [(0, 0, False)]


def test_stock_phrases_of_either_side_are_no_overlap():
    many = [f"The quantity number {'abcdefghijklmnopq'[i] * 3} {STOCK}" for i in range(17)]
    one = [f"Another {STOCK}"]
    assert overlaps(one, many) == overlaps(many, one) == []
    assert overlaps(one, many[:5]) != []


def test_copies_of_one_problem_are_no_stock_phrase():
    assert len(overlaps([SENTENCE.upper()] * 30, [f"{SENTENCE} now"])) == 30


def test_instructions_of_a_set_are_not_compared():
    one = [f"Problem about {name}. {INSTRUCTION}" for name in ("cats", "dogs", "mice", "rats")]
    assert without_instruction(one) == [f"Problem about {name}." for name in ("cats", "dogs", "mice", "rats")]
    prefixed = [f"Solve this step by step: what is {i}?" for i in range(8)]
    assert without_instruction(prefixed) == [f"{i}?" for i in range(8)]
    mixed = ["Please put the answer in a box: what is one?", *(f"{i} {SENTENCE}" for i in "abcdef")]
    assert without_instruction(mixed)[0] == mixed[0]
    assert without_instruction([INSTRUCTION, "same text here now", *["same text here now"] * 5])[0] == INSTRUCTION
    assert without_instruction([f"What? {INSTRUCTION}"]) == ["What?"]
    assert without_instruction([]) == []


def test_duplicates_point_to_the_first():
    assert find_duplicates(["a b", "c", "A  b.", "$c$", "d", "ab"]) == [(2, 0), (3, 1), (5, 0)]


def test_forty_thousand_against_twelve_hundred_problems_takes_seconds():
    generator = random.Random(0)
    vocabulary = [f"word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(3000)]
    here = [" ".join(generator.choices(vocabulary, k=60)) for _ in range(40_000)]
    there = here[:7] + [" ".join(generator.choices(vocabulary, k=60)) for _ in range(1193)]
    start = time.monotonic()
    found = overlaps(here, there)
    assert time.monotonic() - start < 30
    assert found == [(i, i, True) for i in range(7)]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real prompt sets are not at {SHARED}")
def test_real_sets_show_the_copies_that_are_known():
    """DeepScaleR's MATH part repeats 440-odd problems of its AIME part, and two of OlympiadBench."""
    rows = json.loads((SHARED / "train" / "deepscaler_math.json").read_text(encoding="utf-8"))
    sets = read_evaluation_sets([str(SHARED / "train" / "deepscaler_aime.json"), str(SHARED / "eval")], "test")
    texts = without_instruction([row["problem"] for row in rows])
    found = {Path(one.name).stem: [m for m in matches if m.overlap] for one, matches in zip(sets, matches_by_set(texts, sets), strict=True)}
    assert {(match.here, match.there) for match in found["olympiad"]} == {(4520, 522), (6844, 346)}
    assert found["aime24"] == found["aime25"] == found["amc23"] == found["minerva"] == []
    assert 400 < len({match.here for match in found["deepscaler_aime"]}) < 480


def test_folders_hold_every_set_and_bad_sets_are_named(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text('{"question": "q1", "id": 7}\n{"question": "q2"}\n')
    (tmp_path / "deep" / "a.json").write_text('[{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q3"}]}]')
    (tmp_path / "notes.txt").write_text("no set")
    sets = read_evaluation_sets([str(tmp_path)], "test")
    assert [(Path(one.name).name, one.ids, one.texts) for one in sets] == [
        ("b.jsonl", ("7", "2"), ("q1", "q2")),
        ("a.json", ("1",), ("q3",)),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no \.parquet, \.json, \.jsonl file"):
        read_evaluation_sets([str(tmp_path / "empty")], "test")
    with pytest.raises(ValueError, match="does not exist"):
        read_evaluation_sets([str(tmp_path / "none.jsonl")], "test")
