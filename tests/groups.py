"""Scripted groups: rollouts whose every field tells which prompt, sample and version they belong to."""

import dataclasses

import numpy as np

from polaris.sampling.collect import Graded
from polaris.types import Prompt, Rollout, Verdict

VERDICTS = {
    "+": Verdict("correct", answer="1"),
    "-": Verdict("wrong", answer="2"),
    "0": Verdict("no_answer"),
    "x": Verdict("ungradable", reason="timeout", answer="9^9^9"),
}
"""One letter per verdict; "x" is lost to the grader's own limit."""


def prompt(name):
    tokens = tuple((ord(letter) * 7 + i) % 97 for i, letter in enumerate(name * 3))
    return Prompt(id=name, text=f"problem {name}", tokens=tokens, ground_truth=f"truth {name}", source="script:0")


def graded(name, sample, verdict, version=5, temperature=1.0):
    generator = np.random.default_rng([ord(letter) for letter in name] + [sample, version])
    length = int(generator.integers(3, 12))
    rollout = Rollout(
        key=(0, sample),
        prompt_tokens=prompt(name).tokens,
        tokens=generator.integers(0, 97, length).astype(np.int32),
        logprobs=(-np.log(97) + generator.normal(0, 0.5, length)).astype(np.float32),
        finish_reason="stop",
        version=version,
        temperature=temperature,
        seed=int(generator.integers(2**62)),
    )
    return Graded(rollout=rollout, text=f"{name}/{sample}/{version}", verdict=VERDICTS[verdict])


def group(name, verdicts, **fields):
    return [graded(name, sample, verdict, **fields) for sample, verdict in enumerate(verdicts)]


def batch(**verdicts):
    """Prompts and groups of a batch such as `batch(a="+-", b="--")`."""
    return [prompt(name) for name in verdicts], [group(name, letters) for name, letters in verdicts.items()]


def same(first, second):
    """Equality of dataclasses with arrays in them."""
    fields = [(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first)]
    return all(same(a, b) if dataclasses.is_dataclass(a) else a is b or np.array_equal(a, b) for a, b in fields)
