"""The difficulty pass with all responses and with difficulty.stop_early: what is saved, and whether the same prompts are left.

    python benchmarks/recipe/difficulty.py [--out FOLDER] [CONFIG] [--section.key=value ...]

Runs `polaris difficulty CONFIG` (default: the embedded model, 256 prompts) with 8 responses for each prompt: all of them, and
stopping early; then both where what is never solved goes too. For a model and prompts of your own give a CONFIG.
Writes `difficulty-early_DATE.md` and `.json` into FOLDER (default benchmarks/results). Runs that are finished are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polaris.data.pass_rates import read_passes
from polaris.embedded import resolve

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = 256
EARLY, NEVER = "--difficulty.stop_early=true", "--curation.drop_up_to=0"
PASSES = {
    "all responses": [],
    "stop_early": [EARLY],
    "all responses, drop_up_to = 0": [NEVER],
    "stop_early, drop_up_to = 0": [NEVER, EARLY],
}


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    options, rest = parser.parse_known_args()
    config = rest.pop(0) if rest and not rest[0].startswith("-") else None
    root = REPOSITORY / "runs" / "difficulty-early"
    root.mkdir(parents=True, exist_ok=True)
    own = rest if config else [*embedded(root), *rest]
    file = Path(config) if config else REPOSITORY / "configs" / "quickstart.toml"
    found = {name: measure(file, root, name, [*own, *more]) for name, more in PASSES.items()}
    write(options.out, found, ["python benchmarks/recipe/difficulty.py", *([config] if config else []), *rest])


def embedded(root: Path) -> list[str]:
    """The overrides of the embedded model's pass."""
    prompts = root / "prompts.jsonl"
    prompts.write_text("".join(Path(resolve("embedded:train")).read_text().splitlines(keepends=True)[:PROMPTS]))
    return [f"--data.path={prompts}", "--rollout.engine=transformers", "--trainer.prompts_per_step=8"]


def measure(config: Path, root: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """The numbers of a pass, its counts and what curation dropped."""
    folder = name.replace(" ", "-").replace(",", "").replace("=", "")
    command = [sys.executable, "-m", "polaris.cli", "difficulty", str(config), f"--root={root}", f"--name={folder}"]
    subprocess.run([*command, "--difficulty.samples_per_prompt=8", *overrides], check=True, cwd=REPOSITORY)
    stages = root / folder / "stages"
    numbers, curation = (json.loads((stages / f"{part}.json").read_text()) for part in ("difficulty", "curation"))
    return {"numbers": numbers, "dropped": curation["dropped"], "passes": read_passes(stages / "difficulty.parquet")}


def row(name: str, found: dict[str, Any], whole: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table; `whole` is the pass with all responses and the same curation."""
    numbers, all_of = found["numbers"], whole["numbers"]
    settled = Counter(count for _, count in found["passes"].values())
    return (
        name,
        f"{numbers['responses']:,}",
        f"{1 - numbers['responses'] / all_of['responses']:.1%}",
        f"{numbers['tokens']:,}",
        f"{1 - numbers['tokens'] / all_of['tokens']:.1%}",
        f"{numbers['seconds']:.0f} s",
        f"{settled[4] / len(found['passes']):.1%}",
        str(len(found["dropped"])),
        "yes" if found["dropped"] == whole["dropped"] else f"NO, {len(found['dropped'].items() ^ whole['dropped'].items())} differ",
    )


HEAD = ("pass", "responses", "saved", "tokens", "saved", "time", "prompts with 4 verdicts", "dropped", "the same prompts dropped")


def write(out: Path, found: dict[str, dict[str, Any]], command: list[str]) -> None:
    """Markdown and JSON."""
    pairs = list(found.items())
    rows = [HEAD, ("---",) * len(HEAD), *(row(name, one, pairs[index - index % 2][1]) for index, (name, one) in enumerate(pairs))]
    first = pairs[0][1]["numbers"]
    versions = f"torch {version('torch')}, transformers {version('transformers')}"
    facts = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores; {versions}"
    bins = ", ".join(f"{k}: {size}" for k, size in first["histogram"].items())
    text = f"# A difficulty pass that stops early, {date.today()}, {facts}\n\n"
    text += f"{first['prompts']:,} prompts, 8 responses each at most; model {first['settings'].get('weights', '')[:16]}. "
    text += f"With all responses {bins}. `{' '.join(command)}`\n\n"
    text += "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"
    path = out / f"difficulty-early_{date.today()}"
    path.with_suffix(".md").write_text(text)
    numbers = {name: one["numbers"] | {"dropped": len(one["dropped"])} for name, one in found.items()}
    path.with_suffix(".json").write_text(json.dumps({"date": str(date.today()), "facts": facts, "passes": numbers}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
