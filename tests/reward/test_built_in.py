"""The rewards that Polaris brings: each against the formula of its paper, or examples by hand."""

import pytest

from polaris.errors import Refused
from polaris.reward.built_in import Exact, Format, Length, Math, MultipleChoice
from polaris.reward.protocol import RewardItem, Rules


def item(response="", truth="", length=0, limit=0):
    return RewardItem(response=response, ground_truth=truth, length=length, limit=limit)


@pytest.mark.parametrize(("most", "cache"), [(20480, 4096), (100, 100), (64, 1)])
def test_soft_overlong_is_equation_13_of_dapo(most, cache):
    def published(n):
        if n <= most - cache:
            return 0.0
        return ((most - cache) - n) / cache if n <= most else -1.0

    lengths = [1, most - cache, most - cache + 1, most - 1, most, most + 1, 2 * most]
    assert Length(Rules(), limit=most, buffer=cache).score([item(length=n) for n in lengths]) == [published(n) for n in lengths]
    assert Length(Rules(), buffer=cache).score([item(length=n, limit=most) for n in lengths]) == [published(n) for n in lengths]


def test_target_length_is_the_distance_relative_to_the_target():
    found = Length(Rules(), target=200).score([item(length=n) for n in (200, 100, 250, 1, 400, 5000)])
    assert found == pytest.approx([0, -0.5, -0.25, -0.995, -1, -1])


@pytest.mark.parametrize("options", [{}, {"buffer": 3, "target": 4}, {"target": 4, "limit": 9}, {"buffer": 0}, {"buffer": 9, "limit": 8}])
def test_lengths_without_a_meaning_are_refused(options):
    with pytest.raises(Refused, match=r"reward\.options\.length"):
        Length(Rules(), **options)


def test_format_matches_the_whole_response():
    form = Format(Rules(), pattern=r"<think>.*</think>\s*<answer>[^<]*</answer>")
    texts = ["<think>a\nb</think>\n<answer>1</answer>\n", "<think>a</think> 1", "so <think>a</think><answer>1</answer>"]
    assert form.score([item(text) for text in texts]) == [1, 0, 0]
    with pytest.raises(Refused, match=r"reward\.options\.format\.pattern"):
        Format(Rules(), pattern="(")


@pytest.mark.parametrize(
    ("form", "response", "truth", "kind"),
    [
        ("boxed", r"\boxed{New  York}", "new york", "correct"),
        ("boxed", r"\boxed{1/2}", "0.5", "wrong"),
        ("boxed", "New York", "New York", "no_answer"),
        ("####", "#### a\n####  B c ", ("x", "b C"), "correct"),
        ("Answer:", "**Answer:** Paris**", "paris", "correct"),
        ("whole", " yes\n", "yes", "correct"),
        (r"<answer>(.*?)</answer>", "<answer>1</answer> no: <answer>2</answer>", 2, "correct"),
    ],
)
def test_exact_compares_texts_without_case_and_white_space(form, response, truth, kind):
    assert Exact(Rules(answer=form)).score([item(response, truth)])[0].kind == kind


def test_the_answer_is_behind_the_thinking():
    rules = Rules(answer="####", require_thinking=True)
    texts = ["#### 3", "#### 3</think> #### 4", "</think> #### 3", "</think> #### 3 <think> #### 4"]
    found = Exact(rules).score([item(text, 3) for text in texts])
    assert [verdict.kind for verdict in found] == [
        "no_answer",
        "wrong",
        "correct",
        "correct",
    ]


@pytest.mark.parametrize(
    ("form", "response"), [("####", "so #### $1,000$"), ("Answer:", "Final answer: 10^3"), (r"is (\S+)\.", "it is 2. no, it is 1000.")]
)
def test_math_looks_where_it_is_told_to(form, response):
    assert Math(Rules(answer=form)).score([item(response, "1000")])[0].kind == "correct"
    assert Math(Rules()).score([item(response, "1000")])[0].kind == "no_answer"


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"A or B? \boxed{C}", "C"),
        (r"\boxed{\text{(b)} 12}", "B"),
        (r"\boxed{12} so Answer: D", "D"),
        ("Answer: B\nNot C.", "B"),
        ("**Answer:** (E)", "E"),
        ("The answer is d.", "D"),
        ("the answer is (F), not (A)", "F"),
        ("(A) is wrong, so (J). A pity.", "J"),
        ("I think B. I am sure.", "B"),
        ("It is clearly C", "C"),
        ("A good day", None),
        ("nothing", None),
    ],
)
def test_the_letter_of_a_choice(response, letter):
    (verdict,) = MultipleChoice(Rules()).score([item(response, letter or "A")])
    assert (verdict.kind, verdict.answer) == (("correct", letter) if letter else ("no_answer", None))


@pytest.mark.parametrize("truth", ["B", "(b)", "B.", 1, "1", ("C", "B")])
def test_the_ground_truth_of_a_choice_is_a_letter_or_an_index(truth):
    choice = MultipleChoice(Rules())
    assert choice.check(truth) is None
    assert choice.score([item(r"\boxed{B}", truth)])[0].kind == "correct"
    assert choice.score([item(r"\boxed{D}", truth)])[0].kind == "wrong"
    assert choice.check("Paris") == "neither a letter of A to J nor an index"
