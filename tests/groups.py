"""Scripted groups: rollouts whose every field tells which prompt, sample and version they belong to."""

import dataclasses

import numpy as np

from polaris.types import Group, Prompt, Rollout, ScoredRollout, Verdict

VERDICTS = {
    "+": Verdict("correct", answer="1", reward=1.0),
    "-": Verdict("wrong", answer="2"),
    "0": Verdict("no_answer"),
    "x": Verdict("ungradable", reason="timeout", answer="9^9^9"),
}
"""One letter per verdict; "x" is lost to the grader's own limit."""


def prompt(name):
    tokens = tuple((ord(letter) * 7 + i) % 97 for i, letter in enumerate(name * 3))
    return Prompt(id=name, text=f"problem {name}", tokens=tokens, ground_truth=f"truth {name}", source="script:0")


def scored(name, sample, verdict, version=5, temperature=1.0):
    generator = np.random.default_rng([ord(letter) for letter in name] + [sample, version])
    length = int(generator.integers(3, 12))
    rollout = Rollout(
        prompt_id=name,
        sample=sample,
        tokens=generator.integers(0, 97, length).astype(np.int32),
        logprobs=(-np.log(97) + generator.normal(0, 0.5, length)).astype(np.float32),
        finish_reason="stop",
        versions=np.full(length, version, np.int32),
        temperature=temperature,
        seed=int(generator.integers(2**62)),
    )
    return ScoredRollout(rollout=rollout, text=f"{name}/{sample}/{version}", verdict=VERDICTS[verdict])


def group(name, verdicts, **fields):
    return Group(prompt=prompt(name), rollouts=tuple(scored(name, sample, verdict, **fields) for sample, verdict in enumerate(verdicts)))


def batch(**verdicts):
    """The groups of a batch such as `batch(a="+-", b="--")`."""
    return [group(name, letters) for name, letters in verdicts.items()]


def same(first, second):
    """Equality of dataclasses with arrays in them."""
    fields = [(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first)]
    return all(same(a, b) if dataclasses.is_dataclass(a) else a is b or np.array_equal(a, b) for a, b in fields)
