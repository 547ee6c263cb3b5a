"""Worked answers to the tasks of smollm2.toml, from which smollm2-sft.toml teaches their form: the work in lines, the answer in a box.

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
    """`size` problems of each task, less those that a training with this `seed` holds out."""
    for task in TRAINING["data"]["sets"]:
        options = task["options"] | {"size": size, "seed": SEED}
        for _, row in read_rows(task["path"], "train", Reading(options=options)):
            if not held_out(exact_key(row["question"]), TRAINING["eval"]["fraction"], seed):
                work = WORK[row["task"]](row["question"])
                yield {"prompt": row["question"], "response": f"{work}\n\\boxed{{{row['answer']}}}"}


def _running_totals(question: str) -> str:
    first, *terms = re.findall(r"[+-]? ?\d+", question.rpartition(":")[2])
    total, lines = int(first), []
    for term in terms:
        new = total + int(term.replace(" ", ""))
        lines.append(f"{total} {term} = {new}")
        total = new
    return "\n".join(lines)


def _binary(question: str) -> str:
    number = int(re.findall(r"\d+", question)[-1])
    return f"{number} = {' '.join(f'{number:b}')}"


WORK = {"chain_sum": _running_totals, "count_bits": _binary}
