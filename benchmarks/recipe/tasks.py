"""How often a model solves tasks of reasoning-gym that were made as easy as their options allow: the difficulty pass on each.

    python benchmarks/recipe/tasks.py MODEL_FOLDER [TASK ...] [--section.key=value ...]

Sixteen problems a task, four responses each at temperature 1. Every question stands behind three worked examples of its task, as turns of
the chat with the bare answer, and the whole response is the answer. A task that is measured is not measured again (`runs/tasks/MODEL`).
Writes `benchmarks/results/tasks_MODEL_HARDWARE_DATE.md` of all tasks that are measured, the most informative first.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

from polaris.config.load import load_config
from polaris.distributed import mesh
from polaris.observe.console import Console
from polaris.recipe.difficulty import measure_difficulty
from polaris.run.checks import check
from polaris.run.setup import open_sampling
from polaris.stop import StopRequest

RESULTS = Path(__file__).resolve().parents[1] / "results"
PROBLEMS, EXAMPLES = 16, 3
TASKS: Mapping[str, Mapping[str, Any]] = {
    "base_conversion": {"min_base": 2, "max_base": 10, "min_value": 1, "max_value": 9},
    "basic_arithmetic": {"max_terms": 2, "max_digits": 1, "allow_negation": False, "allow_parentheses": False},
    "calendar_arithmetic": {"tasks": ["weekday_of_date"]},
    "chain_sum": {"max_terms": 2, "min_digits": 1, "max_digits": 1},
    "count_bits": {"min_n": 1, "max_n": 15},
    "count_primes": {"min_n": 1, "max_n": 10},
    "family_relationships": {"min_family_size": 3, "max_family_size": 3},
    "fraction_simplification": {"min_value": 1, "max_value": 9, "min_factor": 2, "max_factor": 3, "styles": ["plain"]},
    "gcd": {"max_numbers": 2, "min_value": 1, "max_value": 12},
    "lcm": {"max_numbers": 2, "min_value": 1, "max_value": 9},
    "leg_counting": {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 4},
    "letter_counting": {"min_words": 1, "max_words": 2},
    "needle_haystack": {"min_num_statements": 3, "max_num_statements": 5},
    "number_sequence": {"max_complexity": 1, "min_terms": 4, "max_terms": 5},
    "prime_factorization": {"min_value": 2, "max_value": 20},
    "products": {"max_terms": 2, "min_digits": 1, "max_digits": 1},
    "spell_backward": {"min_word_len": 3, "max_word_len": 3},
    "syllogism": {},
    "word_sequence_reversal": {"min_words": 2, "max_words": 3},
}
CONFIG = """
model = { dtype = "bfloat16" }
rollout = { max_response_tokens = 24, kv_cache_mib = 512 }
reward = { function = "reasoning_gym", answer = "whole" }
difficulty = { samples_per_prompt = 4, temperature = 1.0 }
trainer = { prompts_per_step = 1 }
"""


def main() -> None:
    folder, *rest = sys.argv[1:]
    names, overrides = [word for word in rest if not word.startswith("--")], [word for word in rest if word.startswith("--")]
    model = Path(folder).name
    out = Path("runs/tasks") / model
    out.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in names or TASKS if not (out / name / "difficulty.json").exists()]:
        measure(folder, missing, overrides, out)
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/difficulty.json")}
    command = " ".join(["python benchmarks/recipe/tasks.py", "MODEL_FOLDER", *rest])
    text = markdown(model, command, found)
    (RESULTS / f"tasks_{model}_cpu-{cpu_count()}-cores_{date.today().isoformat()}.md").write_text(text)
    print(text)


def measure(folder: str, names: list[str], overrides: list[str], out: Path) -> None:
    """Run the pass over each of the tasks with one engine."""
    sets = "".join(f'[[data.sets]]\npath = "reasoning_gym:{name}"\noptions = {{ {options_of(name)} }}\n' for name in names)
    config = out / "tasks.toml"
    config.write_text(CONFIG + sets)
    world = mesh.start()
    checked = check(load_config(config, [f"--model.path={folder}", f"--root={out}", *overrides]))
    with open_sampling(checked, world, StopRequest(), Console(world.is_main, 0)) as context:
        for name in names:
            prompts = [prompt for prompt in checked.prompts.prompts if prompt.row["task"] == name]
            (out / name).mkdir(exist_ok=True)
            measure_difficulty(context, prompts, out / name)
    mesh.stop()


def options_of(name: str) -> str:
    """The options of a task as TOML writes them."""
    own = {"size": PROBLEMS, "examples": EXAMPLES} | TASKS[name]
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in own.items())


def markdown(model: str, command: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "reasoning-gym"))
    head = ("task", "options", "pass rate", "solved sometimes", "never", "always", "tokens per response", "cut off", "seconds")
    table = [head, ("---",) * len(head)]
    for name, one in sorted(found.items(), key=lambda item: -item[1]["informative_share"]):
        counts, samples = one["histogram"], one["samples_per_prompt"]
        cells = (
            f"{one['accuracy']:.3f}",
            f"{one['informative_share']:.0%}",
            f"{counts[f'0/{samples}']}",
            f"{counts[f'{samples}/{samples}']}",
        )
        cost = (f"{one['response_length_mean']:.1f}", f"{one['clip_share']:.0%}", f"{one['seconds']:.0f}")
        table.append((name, options_of(name), *cells, *cost))
    parts = [
        f"# Easy tasks of reasoning-gym, {model}, {date.today().isoformat()}, {platform.machine()} CPU, {cpu_count()} cores",
        f"Python {platform.python_version()}, {versions}. Command: `{command}`.",
        f"{PROBLEMS} problems, four responses each at temperature 1; {EXAMPLES} worked examples as turns with the bare answer; the whole "
        "response is the answer. `solved sometimes` is the share of problems that have neither no right response nor only right ones.",
        "\n".join(f"| {' | '.join(row)} |" for row in table),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
