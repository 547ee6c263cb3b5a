"""Rows of a task of reasoning-gym: its questions and answers, and what its own scorer needs to grade a response.

A fresh interpreter makes them, with one hash seed: some tasks walk over sets, and every rank, every resumed run and every grading process
must have the same rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from polaris.config.composite import COMPOSITE
from polaris.config.names import shown
from polaris.data.reading import Reading
from polaris.doors import GYM
from polaris.errors import Refused, RunFailed
from polaris.reward.gym import COLUMN
from polaris.reward.gym_task import Task, dataset, tasks
from polaris.reward.process import Program

_EXAMPLES = -1
"""The seed of worked examples; a user's are from 0."""
_CHOICE = 3
"""Drawn for each example that is shown."""


def gym_rows(path: str, reading: Reading) -> Iterator[dict[str, Any]]:
    """The rows of `reasoning_gym:NAME`: `id`, `question`, `answer` (None where the package gives no example of one), `task`, `level` (None
    without `levels`), and the column by which the reward finds the entry. One level comes after the other, and of `reasoning_gym:composite`
    one task. With the option `examples`,
    `prompt` is a chat that begins with as many worked examples, the same for all rows and seeds.

    Raises:
        Refused: an unknown task or option, or one that the task refuses; also where it fails at an entry.
    """
    name, key, options = path.removeprefix(GYM), f"{reading.key}.options", dict(reading.options)
    examples = 0 if name == COMPOSITE else options.pop("examples", 0)
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 0:
        raise Refused(f"{key}.examples = {shown(examples)} must be a number of worked examples, 0 or more")
    asked = tasks(name, options, key)
    shown_first = [replace(asked[0], seed=_EXAMPLES, size=_CHOICE * examples)] if examples else []
    try:
        made = rows_of([*shown_first, *asked])
    except RunFailed as error:
        raise Refused(f"{path} does not make its rows with {key} = {dict(reading.options)}; change them. {error}") from error
    turns = _worked(path, list(islice(made, _CHOICE * examples)), examples)
    return (row | _chat(turns, row) if turns else row for row in made)


def _worked(path: str, drawn: Sequence[dict[str, Any]], examples: int) -> list[dict[str, str]]:
    """Turns of a chat: questions that no seed of the user's draws, with their bare answers, which differ where they can.

    Raises:
        Refused: the package gives no answers of this task.
    """
    if any(row["answer"] is None for row in drawn):
        raise Refused(f"{path} has no answers of its own to show; remove the option examples")
    chosen = [*{row["answer"]: row for row in drawn}.values(), *drawn][:examples]
    return [turn for row in chosen for turn in (*_chat([], row)["prompt"], {"role": "assistant", "content": row["answer"]})]


def _chat(turns: list[dict[str, str]], row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [*turns, {"role": "user", "content": row["question"]}]}


def rows_of(asked: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """The rows of tasks, from one fresh interpreter. Raises `RunFailed` with its last words."""
    program = Program(module="polaris.data.gym", arguments=(json.dumps([asdict(task) for task in asked]),))
    command = [sys.executable, "-P", "-m", program.module, *program.arguments]
    made = subprocess.run(command, capture_output=True, text=True, env=program.environment(), check=False)
    if made.returncode:
        raise RunFailed(f"It says: {made.stderr.strip()[-500:]}")
    return map(json.loads, made.stdout.split("\n")[:-1])


def main() -> None:
    """Print the rows of the tasks in the argument, a line of JSON each. What the package prints goes to stderr."""
    with redirect_stdout(sys.stderr):
        for told in json.loads(sys.argv[1]):
            task = Task(**told)
            made = dataset(task)
            for index in range(task.size):
                print(json.dumps(_row(task, index, made[index])), file=sys.__stdout__)


def _row(task: Task, index: int, entry: dict[str, Any]) -> dict[str, Any]:
    level = "" if task.level is None else f"level{task.level}-"
    return {
        "id": f"{task.name}-seed{task.seed}-{level}{index}",
        "question": entry["question"],
        "answer": entry["answer"],
        "task": task.name,
        "level": task.level,
        COLUMN: {**asdict(task), "index": index},
    }


if __name__ == "__main__":
    main()
