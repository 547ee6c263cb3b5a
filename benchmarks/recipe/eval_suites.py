"""The five real evaluation sets through `polaris eval` with the embedded model, uninterrupted and killed half-way.

    python benchmarks/recipe/eval_suites.py DATA_FOLDER

The score is near 0 (the model only adds and subtracts); what counts is that every set loads, generates, is graded and reported, and that
nothing is generated twice. Writes `benchmarks/results/eval-suites_HARDWARE_DATE.{json,md}`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from polaris.evaluation.samples import read_samples

RESULTS = Path(__file__).resolve().parents[1] / "results"
SUITE = "aime24,aime25,amc23,minerva,olympiad"
OPTIONS = (
    "--model embedded:model --engine transformers --dtype float32 --workers 1 -n 1 --max-tokens 12 --concurrent 32 --buckets quartiles"
)


def main() -> None:
    data = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
        begun = time.monotonic()
        start(data, whole).wait()
        seconds = time.monotonic() - begun
        result = json.loads((whole / "result.json").read_text())
        kept = kill_half_way(data, resumed, result["last_call"]["samples"] // 2)
        start(data, resumed).wait()
        again = json.loads((resumed / "result.json").read_text())
        same = {s.key: s.response for s in read_samples(whole / "rope-1")} == {s.key: s.response for s in read_samples(resumed / "rope-1")}
    outcome = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {cpu_count()} cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("torch", "transformers"))]),
        "command": f"polaris eval {OPTIONS} --suite {SUITE} --data-folder DATA_FOLDER",
        "seconds": round(seconds),
        "samples": result["last_call"]["samples"],
        "samples_before_the_kill": kept,
        "samples_after_the_kill": again["last_call"]["samples"],
        "same_responses": same,
        "same_numbers": again["results"] == result["results"],
        "results": result["results"],
    }
    name = f"eval-suites_cpu-{cpu_count()}-cores_{date.today().isoformat()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(outcome, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(report(outcome))
    print(report(outcome))


def start(data: str, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "polaris.cli", "eval", *OPTIONS.split(), "--suite", SUITE]
    return subprocess.Popen([*command, "--data-folder", data, "--output", str(output)])


def kill_half_way(data: str, output: Path, count: int) -> int:
    """Samples on disk after a SIGKILL that came when there were `count`."""
    process, file = start(data, output), output / "rope-1" / "samples-rank0.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.1)
    process.kill()
    process.wait()
    return file.read_bytes().count(b"\n")


def report(outcome: dict) -> str:
    sets = outcome["results"]["1"]
    lines = [
        "# Five real sets through `polaris eval` with the embedded model",
        "",
        f"{outcome['date']}, {outcome['machine']}; {outcome['versions']}; `{outcome['command']}`",
        "",
        f"{outcome['samples']} samples in {outcome['seconds']} s. Killed (SIGKILL) with {outcome['samples_before_the_kill']} on disk and "
        f"resumed: {outcome['samples_after_the_kill']} more were generated. Same responses as the uninterrupted run: "
        f"{outcome['same_responses']}; same numbers: {outcome['same_numbers']}.",
        "",
        "| set | problems | avg@1 | no answer | clipped | disagreements of the two graders |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {n['problems']} | {n['avg']['mean']:.1%} | {n['no_answer']:.1%} | {n['clipped']:.1%} | {len(n['disagreements'])} |"
        for name, n in sets.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
