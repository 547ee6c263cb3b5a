"""Verdicts that are known by construction: sympy, Python's fractions and permutations say what is equal."""

from fractions import Fraction

import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polaris.reward.grade import decide, grade
from polaris.types import Verdict

X, Y = sympy.symbols("x y")
integers = st.integers(-(10**6), 10**6)
fractions = st.builds(Fraction, st.integers(-999, 999), st.integers(2, 60)).filter(lambda number: number.denominator > 1)
polynomials = st.builds(
    lambda roots, lead, y: sympy.Integer(lead) * sympy.prod([X - root for root in roots]) + y * Y,
    st.lists(st.integers(-5, 5), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(-3, 3),
)
dressings = st.builds(
    lambda inner, outer: outer.format(inner),
    st.sampled_from(["{}", " {} ", "\\,{}", "\\displaystyle {}", "{{{}}}", "\\boxed{{{}}}"]),
    st.sampled_from(["{}", "${}$", "\\({}\\)", "\\[{}\\]", "$${}$$", "{}."]),
)
"""Templates of harmless clothes for an answer."""
modest = settings(max_examples=60)


def correct(answer, gold):
    return grade(f"so \\boxed{{{answer}}}", gold, require_thinking=False).kind == "correct"


def spellings(number):
    """A fraction in lowest terms as policies and sets write it."""
    sign, top, bottom = "-" if number < 0 else "", abs(number.numerator), number.denominator
    whole = [f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}"] if top > bottom else []
    quotients = [f"{sign}\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{number.numerator}}}{{{bottom}}}", f"{sign}\\tfrac{{{top}}}{{{bottom}}}"]
    return st.sampled_from([*quotients, f"{number.numerator}/{bottom}", *whole])


@given(st.data(), fractions, dressings)
def test_spellings_of_a_fraction_are_equal_and_those_of_another_are_not(data, number, dressing):
    gold, answer = data.draw(spellings(number)), dressing.format(data.draw(spellings(number)))
    assert correct(answer, gold)
    other = data.draw(fractions)
    assume(other != number)
    assert not correct(dressing.format(data.draw(spellings(other))), gold)


@given(integers, integers, dressings, st.sampled_from(["{}", "{:,}", "{}.0", "{}.00", "+{}", "{}\\text{{ cm}}", "{}^\\circ"]))
def test_integers_in_their_dress(number, other, dressing, form):
    answer = dressing.format(form.format(number).replace("+-", "-"))
    assert correct(answer, str(number))
    assert correct(answer, float(number))
    assume(other != number)
    assert not correct(answer, str(other))


@given(st.integers(-(10**6), 10**6), st.integers(1, 5), st.sampled_from([1, -1]))
def test_decimals_are_exact(digits, places, step):
    number = Fraction(digits, 10**places)
    texts = [f"{'-' if n < 0 else ''}{abs(n) // 10**places}.{abs(n) % 10**places:0{places}d}" for n in (digits, digits + step)]
    assert correct(texts[0], f"\\frac{{{number.numerator}}}{{{number.denominator}}}")
    assert correct(texts[0] + "00", texts[0])
    assert not correct(texts[1], texts[0])


@given(
    st.data(), st.lists(integers, min_size=2, max_size=6, unique=True), st.sampled_from(["{}", "\\{{{}\\}}", "\\left\\{{ {} \\right\\}}"])
)
def test_lists_and_sets_in_any_order_and_whole(data, items, form):
    gold = form.format(", ".join(map(str, items)))
    order = data.draw(st.permutations(items))
    assert correct(form.format(", ".join(map(str, order))), gold)
    assert not correct(form.format(", ".join(map(str, order[1:]))), gold)
    assert not correct(form.format(", ".join(map(str, [*order, 10**7]))), gold)
    assert not correct(form.format(", ".join(map(str, [order[0] + 10**7, *order[1:]]))), gold)


@given(st.data(), st.lists(integers, min_size=2, max_size=4))
def test_tuples_keep_their_order(data, items):
    order = data.draw(st.permutations(items))
    gold, answer = (f"({', '.join(map(str, chosen))})" for chosen in (items, order))
    assert correct(answer.replace("(", "\\left(").replace(")", "\\right)"), gold) == (order == items)


@modest
@given(
    polynomials,
    polynomials,
    st.sampled_from([sympy.expand, sympy.factor, lambda e: sympy.collect(sympy.expand(e), X), lambda e: 2 * e / 2]),
)
def test_polynomials_are_equal_where_sympy_says_so(one, other, rewrite):
    assume(not sympy.expand(one).is_number)
    gold = sympy.latex(one)
    assert correct(sympy.latex(rewrite(one)), gold)
    assert not correct(sympy.latex(rewrite(one) + 1), gold)
    assert correct(sympy.latex(rewrite(other)), gold) == (sympy.expand(one - other) == 0)


@modest
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 20), st.sampled_from([1, -1]))
def test_surds_are_equal_where_sympy_says_so(under, inside, bottom, step):
    number = (sympy.sqrt(under) + sympy.sqrt(inside)) / bottom
    gold = sympy.latex(number)
    assume("sqrt" in gold)
    assert correct(f"\\frac{{\\sqrt{{{inside}}} + \\sqrt{{{under}}}}}{{{bottom}}}", gold)
    assert correct(sympy.latex(sympy.radsimp(1 / (1 / number))), gold)
    assert not correct(f"\\frac{{\\sqrt{{{inside}}} + \\sqrt{{{under + step}}}}}{{{bottom}}}", gold)


PIECES = [
    *(
        "5",
        "7",
        "-",
        "0.5",
        "\\frac{1}{2}",
        "x",
        "n",
        "=",
        " ",
        ",",
        ";",
        "(",
        ")",
        "[",
        "]",
        "\\{",
        "\\}",
        "<",
        "|x|",
        "^2",
        "\\pm ",
        "%",
        "$",
        "'",
    ),
    *(
        "\\text{ or }",
        "\\text{ and }",
        "either ",
        "\\text{is }",
        "The answer is ",
        "x is ",
        "not ",
        "half of ",
        "so ",
        "option ",
        "answer: ",
    ),
    *(
        "\\approx ",
        "approximately ",
        "\\text{ (approximately }",
        "for all n",
        "where n is an integer",
        ", n\\in Z",
        "\\forall n",
        "\\ldots ",
    ),
    *(
        "\\text{ cm}",
        "\\text{ m}^2",
        " h ",
        "min",
        "^\\circ ",
        "\\begin{cases}",
        "\\end{cases}",
        "\\begin{array}{l}",
        "\\end{array}",
        "\\\\",
        "&",
    ),
    *(
        "x_1=",
        "x_2=",
        "y=",
        "f(x)=",
        "\\cup ",
        "\\in ",
        "**",
        "①",
        "{,}",
        "10, 000",
        "th",
        "all real numbers",
        "\\mathbb{Z}",
        "{",
        "}",
        "\\text{",
    ),
]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join), st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_no_words_around_an_answer_make_it_two(text, gold):
    """Whatever stands around it, one answer equals one of these numbers at most, and nothing that is written raises."""
    found = [decide(f"\\boxed{{{text}}}", number, require_thinking=False) for number in ("5", "7", "-5", "12")]
    assert sum(isinstance(one, Verdict) and one.kind == "correct" for one in found) <= 1
    decide(f"\\boxed{{{text}}}", gold, require_thinking=False)


@settings(max_examples=400)
@given(st.text(alphabet="0123456789+-*/^=<>,.;:()[]{}\\| xinfty%$ortex", max_size=30), st.sampled_from(["strict", "deepscaler"]))
def test_no_text_equals_two_numbers(text, mode):
    """Whatever a policy writes, it commits to one integer; without any algebra, but for equations, whose sides have to agree."""
    found = [decide(f"\\boxed{{{text}}}", number, require_thinking=False, mode=mode) for number in ("1", "2", "12", "0")]
    assert sum(isinstance(one, Verdict) and one.kind == "correct" for one in found) <= 1
    if mode == "strict" and "=" not in text:
        assert all(isinstance(one, Verdict) for one in found)
