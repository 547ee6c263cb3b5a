"""In which form prompts ask for the answer."""

import pytest

from polaris.data.answer_format import asked_for, findings


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Let's think step by step and output the final answer within \\boxed{}.", "\\boxed{}"),
        ("Give Answer: $\\boxed{x}$ on the last line", "\\boxed{}"),
        ("Return a boxed answer.", "\\boxed{}"),
        ("The last line of your response should be of the form Answer: $Answer (without quotes)", '"Answer:"'),
        ("End with **Answer:** and a number", '"Answer:"'),
        ("Show the work in <think> </think> and the result in <answer> </answer> tags", "<answer> tags"),
        ('Output the final answer after "####".', '"####"'),
        ('Finish with "The final answer is N".', '"the answer is"'),
        ("What is the answer?", "no form"),
        ("A boxer fights 3 rounds in a ring of 4 boxes.", "no form"),
    ],
)
def test_the_form_that_a_prompt_names(text, form):
    assert asked_for(text) == form


def test_a_set_that_asks_for_no_box_is_told_how_to():
    asked, warning = findings(["1 + 1?", "Answer: N", "Answer: M", "in \\boxed{}"])
    assert asked == 'answers asked for in: "Answer:" 2, no form 1, \\boxed{} 1'
    assert warning.startswith("warning: 3 of 4 prompts do not ask for a box")
    assert 'data.prompt_suffix = "' in warning
    assert list(findings(["in \\boxed{}"])) == ["answers asked for in: \\boxed{} 1"]
