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
from dataclasses import asdict
from typing import Any

from polaris.data.reading import Reading
from polaris.doors import GYM
from polaris.errors import Refused, RunFailed
from polaris.reward.gym import COLUMN
from polaris.reward.gym_task import Task, dataset, tasks
from polaris.reward.process import Program


def gym_rows(path: str, reading: Reading) -> Iterator[dict[str, Any]]:
    """The rows of `reasoning_gym:NAME`: `id`, `question`, `answer` (None where the package gives no example of one), `task`, `level` (None
    without `levels`), and the column by which the reward finds the entry. One level comes after the other.

    Raises:
        Refused: an unknown task or option, or one that the task refuses; also where it fails at an entry.
    """
    key = f"{reading.key}.options"
    asked = tasks(path.removeprefix(GYM), reading.options, key)
    try:
        return rows_of(asked)
    except RunFailed as error:
        raise Refused(f"{path} does not make its rows with {key} = {dict(reading.options)}; change them. {error}") from error


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
