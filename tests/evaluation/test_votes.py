"""Classes of equal answers by the real grader."""

import pytest

from polaris.evaluation.metrics import CORRECT, votes_of
from polaris.reward.pool import GraderPool


@pytest.mark.parametrize("require_thinking", [False, True])
def test_equal_answers_share_a_class_however_they_are_written(require_thinking):
    responses = [
        r"\boxed{1/2}",
        r"\boxed{\frac{1}{2}}",
        r"\boxed{x+1}",
        "nothing",
        r"\boxed{0.5}",
        r"\boxed{1+x}",
        r"\boxed{7}",
        r"\boxed{3}",
    ]
    with GraderPool(1, 5.0, require_thinking) as pool:
        verdicts = pool.grade([("</think>" + response, "7") for response in responses])
        votes = votes_of(verdicts, pool)
    assert votes == ["1/2", "1/2", "x+1", None, "1/2", "x+1", CORRECT, "3"]


def test_correct_answers_of_other_spellings_and_alternatives_are_one_class():
    with GraderPool(1, 5.0, require_thinking=False) as pool:
        verdicts = pool.grade([(rf"\boxed{{{answer}}}", ("0.5", "7")) for answer in ("7", "1/2", "0.5", "8")])
        assert votes_of(verdicts, pool) == [CORRECT, CORRECT, CORRECT, "8"]
