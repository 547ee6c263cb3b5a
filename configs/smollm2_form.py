"""Worked answers to the sums of smollm2.toml, from which smollm2-sft.toml teaches their form: a running total a line, the answer in a box.

No problem that the training holds out is among them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from polaris.data.digest import held_out
from polaris.data.normalise import exact_key
from polaris.data.reading import Reading
from polaris.data.sources import read_rows

TRAINING = tomllib.loads(Path(__file__).with_name("smollm2.toml").read_text())
SEED = 1000
"""Of the problems; the training draws those of seed 0."""


def rows(size: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """`size` problems, less those that a training with this `seed` holds out."""
    reading = Reading(options=TRAINING["data"]["options"] | {"size": size, "seed": SEED})
    for _, row in read_rows(TRAINING["data"]["path"], "train", reading):
        if not held_out(exact_key(row["question"]), TRAINING["eval"]["fraction"], seed):
            yield {"prompt": row["question"], "response": f"{_running_totals(row['question'])}\n\\boxed{{{row['answer']}}}"}


def _running_totals(question: str) -> str:
    first, *terms = re.findall(r"[+-]? ?\d+", question.rpartition(":")[2])
    total, lines = int(first), []
    for term in terms:
        new = total + int(term.replace(" ", ""))
        lines.append(f"{total} {term} = {new}")
        total = new
    return "\n".join(lines)
