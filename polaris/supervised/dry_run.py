"""`polaris sft --dry-run`: what a configuration comes to, after all checks and before any weight is read."""

from __future__ import annotations

from itertools import groupby

from polaris.data.conversations import Example
from polaris.observe.console import Console
from polaris.run.dry_plan import conclude, show_plan
from polaris.supervised.checks import CheckedSft
from polaris.supervised.job import plan

OPEN, CLOSE = "\u27e6", "\u27e7"
"""Brackets around what is trained on."""


def show(checked: CheckedSft) -> None:
    """Print the facts, then the first example as the model reads it, with what is trained on in brackets.

    Raises `Refused` where the plan does not fit the GPUs of this machine."""
    first = checked.data.examples[0]
    Console(True, 0).banner(plan(checked, checked.steps) | {"run": str(checked.config.folder)})
    fault = show_plan(checked.config, checked.model.folder)
    print(f"\nthe first example ({first.source}, {len(first.tokens)} tokens); what is trained on stands in {OPEN} {CLOSE}:\n")
    print(marked_text(first, checked))
    conclude(fault)


def marked_text(example: Example, checked: CheckedSft) -> str:
    """The example's text, special tokens included, with brackets around its trained parts."""
    parts = []
    for trained, tokens in groupby(zip(example.mask.tolist(), example.tokens.tolist(), strict=True), key=lambda pair: pair[0]):
        text = str(checked.tokenizer.decode([token for _, token in tokens], skip_special_tokens=False))
        parts.append(f"{OPEN}{text}{CLOSE}" if trained else text)
    return "".join(parts)
