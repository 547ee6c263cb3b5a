from dataclasses import replace

from polaris.data.digest import digest
from polaris.types import Prompt


def test_the_digest_changes_with_whatever_a_response_or_verdict_depends_on():
    prompt = Prompt(id="a", text="1+1", tokens=(1, 2), ground_truth="2", source="x:1")
    other = replace(prompt, id="b")
    seen = [[prompt], [other], [prompt, other], [other, prompt], [replace(prompt, tokens=(1, 3))], [replace(prompt, ground_truth=2)]]
    assert len({digest(prompts) for prompts in seen}) == len(seen)
    assert digest([replace(prompt, source="y:7")]) == digest([prompt])
