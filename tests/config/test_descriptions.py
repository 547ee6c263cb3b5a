"""Whatever `--help` lists has a meaning there."""

import ast
from pathlib import Path

import pytest

import polaris.config
from polaris.cli import _parser
from polaris.config.load import describe_fields

FILES = sorted(Path(polaris.config.__file__).parent.glob("*.py"))
CLASSES = [node for file in FILES for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
SECTIONS = [node for node in CLASSES if node.name.endswith("Config")]
NAMES = {section.name for section in SECTIONS}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_section_and_field_of_a_configuration_says_what_it_is(section):
    assert ast.get_docstring(section)
    fields = [node for node in section.body if isinstance(node, ast.AnnAssign)]
    described = [
        node
        for node, following in zip(section.body, section.body[1:], strict=False)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str)
    ]
    missing = [f.target.id for f in fields if f not in described and not (isinstance(f.annotation, ast.Name) and f.annotation.id in NAMES)]
    assert fields
    assert missing == []


def test_help_says_that_training_takes_no_truncated_samples():
    words = " ".join(describe_fields().replace("│", " ").split())
    assert "--rollout.top_p FLOAT Refused below 1: training samples from the policy that the loss differentiates" in words
    assert "--rollout.top_k INT Refused unless -1" in words


def test_every_option_of_every_command_says_what_it_is():
    parsers = [_parser()]
    for parser in parsers:  # those of commands are added as they are found
        for action in parser._actions:
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
            else:
                assert action.help, f"{parser.prog} {action.dest}"
    assert len(parsers) > 10
