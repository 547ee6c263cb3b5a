"""The real loop with two engines on this machine: how sampling is shared out, and what is carried over.

    python benchmarks/rollout/two_engines.py [SEEDS] [ROOT] [STEPS] [OLD]

The quickstart's model and task by vLLM on two ranks, one thread each, with natural lengths and with a long tail (of seven problems six have
one or two operations and one has nine or ten). Held-out accuracy is compared at the same number of generated tokens, as in
`benchmarks/recipe/compare.py`; the first variant makes STEPS steps (default 60). OLD is a checkout of a commit before the queue (24339382),
where each engine gets its part of the prompts at once: `git worktree add OLD 24339382`. Runs are below ROOT (default: runs/rollout).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipe"))

from compare import CONFIGS, REPOSITORY, Comparison, write

from polaris.data.sources import read_rows, write_rows
from polaris.embedded import resolve
from polaris.observe.metrics import read_records

PROMPTS, WARM = 2048, 3
OPTIONS = ["--trainer.cpu_threads=1", "--eval.every=5", "--observe.tensorboard=false", "--checkpoint.every=1000", "--rollout.engine=vllm"]
OPTIONS += ["--rollout.temperature=1.2"]
SEPARATE = ["--rollout.placement=separate", "--rollout.engine_ranks=1"]
VARIANTS = {
    "queue": [],
    "oversample 2": ["--rollout.oversample=2"],
    "carry over 2": ["--rollout.oversample=2", "--rollout.carry_over=true"],
    **{f"separate, staleness {most}": [*SEPARATE, f"--rollout.max_staleness={most}"] for most in (0, 1, 2, 4)},
}
STATIC = "static share"


def main(seeds: int, root: Path, steps: int, old: Path | None) -> None:
    """Run what is missing, one run at a time, and write the tables."""
    accuracy, speeds, spent = {}, {}, list[float]()
    variants = VARIANTS if old is None else {**VARIANTS, STATIC: []}
    for task, rows in {"natural lengths": natural(), "a long tail": long_tail()}.items():
        place = root / task.replace(" ", "-")
        comparison = on_two_ranks(place, rows, variants, steps, seeds, {STATIC: old} if old else {})
        runs, budgets = comparison.run()
        spent += budgets
        accuracy[task] = comparison.scores(runs, budgets)
        speeds[task] = {name: [speed(runs[name, seed]) for seed in range(seeds)] for name in variants}
    more = "".join(f"\n## Speed, {task}\n\n{table(found)}" for task, found in speeds.items())
    write("Two engines on two ranks", Path(__file__).stem, f"{seeds} ROOT {steps}", accuracy, spent, more, folder="rollout", speeds=speeds)


def on_two_ranks(
    root: Path,
    rows: Sequence[Mapping[str, Any]],
    variants: Mapping[str, Sequence[str]],
    steps: int,
    seeds: int,
    checkouts: Mapping[str, Path],
) -> Comparison:
    """Runs of the quickstart's model on these problems, one at a time, each on two ranks."""
    write_rows(root / "train.jsonl", rows)
    return Comparison(
        config=CONFIGS / "quickstart.toml",
        options=[f"--data.path={root / 'train.jsonl'}", *OPTIONS],
        variants=variants,
        steps=[steps],
        root=root,
        seeds=seeds,
        parallel=1,
        ranks=2,
        checkouts=checkouts,
    )


def natural() -> list[dict[str, Any]]:
    """Problems as the quickstart draws them."""
    return [row for _, row in islice(read_rows(resolve("embedded:train"), "train"), PROMPTS)]


def long_tail() -> list[dict[str, Any]]:
    """Six short problems, then a long one, and so on."""
    rows = [row for _, row in read_rows(resolve("embedded:train"), "train")]
    short, long = ([row for row in rows if row["difficulty"] in kinds] for kinds in ((1, 2), (9, 10)))
    return [row for place in range(min(len(short) // 6, len(long))) for row in (*short[6 * place : 6 * place + 6], long[place])]


def speed(folder: Path) -> dict[str, float]:
    """Medians over a run's steps but the first ones."""
    records = [record for record in read_records(folder / "metrics.jsonl") if "seconds/rollout" in record][WARM:]
    keys = ("seconds/step", "seconds/rollout", "throughput/rollout_tokens_per_s", "throughput/engines_busy", "response/length_mean")
    keys += ("groups/informative", "rollout/carried_prompts", "rollout/dropped_tokens", "rollout/staleness_mean")
    return {key: median(record[key] for record in records) for key in keys if all(key in record for record in records)}


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """Markdown: medians of each variant, averaged over seeds."""
    keys = list(dict.fromkeys(key for speeds in found.values() for one in speeds for key in one))
    rows = [["variant", *keys], ["---"] * (len(keys) + 1)]
    for name, speeds in found.items():
        means = [sum(one[key] for one in speeds) / len(speeds) if all(key in one for one in speeds) else None for key in keys]
        rows.append([name, *("" if mean is None else f"{mean:,.3g}" if mean < 1000 else f"{mean:,.0f}" for mean in means)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *[""] * 4]
    main(
        int(arguments[0] or 1),
        Path(arguments[1] or REPOSITORY / "runs" / "rollout"),
        int(arguments[2] or 60),
        Path(arguments[3]) if arguments[3] else None,
    )
