"""What chat templates and responses decide about thinking."""

import pytest
from jinja2 import Template

from polaris.reward.thinking import by_responses, by_template, opens_thinking

ASSISTANT = "<|im_start|>user\n{{ text }}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "R1 distill": "<|User|>{{ text }}<|Assistant|><think>\n",
    "Qwen3 thinking 2507": ASSISTANT + "<think>\n",
    "Qwen3": ASSISTANT + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
    "DeepSeek V3.1": "<|User|>{{ text }}<|Assistant|>{% if thinking %}<think>{% else %}</think>{% endif %}",
    "SmolLM2": ASSISTANT,
}


@pytest.mark.parametrize(
    ("template", "options", "required"),
    [
        ("R1 distill", {}, True),
        ("Qwen3 thinking 2507", {}, True),
        ("Qwen3", {}, None),
        ("Qwen3", {"enable_thinking": True}, None),
        ("Qwen3", {"enable_thinking": False}, False),
        ("DeepSeek V3.1", {}, False),
        ("DeepSeek V3.1", {"thinking": True}, True),
        ("SmolLM2", {}, None),
    ],
)
@pytest.mark.parametrize("text", ["1 + 1?", "Think within <think> and </think>.", "Begin with <think>"])
def test_what_the_prompt_ends_with_decides(template, options, required, text):
    prompts = [Template(TEMPLATES[template], keep_trailing_newline=True).render(text=text, **options)] * 3
    decided = by_template(prompts)
    assert (decided and decided.required) == required


def test_prompts_that_differ_leave_it_to_the_model():
    assert by_template(["a<think>\n", "b<think></think>"]) is None
    assert by_template(["a<think>\n", "b"]) is None
    assert by_template([]) is None


@pytest.mark.parametrize(
    ("response", "prompt", "opened"),
    [
        ("<think>\nHm", "", True),
        ("Hm</think> 2", "", True),
        ("Hm", "user: x\nassistant: <think>\n", True),
        ("Hm", "user: <think>\nassistant: ", False),
        ("Let me think", "", False),
    ],
)
def test_a_response_opens_thinking_by_itself_or_its_prompt_did(response, prompt, opened):
    assert opens_thinking(response, prompt) is opened


@pytest.mark.parametrize(("opened", "of", "required"), [(0, 32, False), (16, 32, False), (17, 32, True), (32, 32, True), (0, 0, False)])
def test_more_than_half_of_the_responses_decide(opened, of, required):
    decided = by_responses([True] * opened + [False] * (of - opened))
    assert decided.required is required
    assert decided.why == f"{opened} of {of} responses open thinking"
