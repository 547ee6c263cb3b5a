"""Measurements -> `benchmarks/results/SUBJECT_HARDWARE_DATE.{json,md}` and the table in kernels/README.md.

    python benchmarks/summary.py benchmark.json                     # a run of `pytest benchmarks`
    python benchmarks/summary.py call-1.jsonl call-2.jsonl          # results.jsonl of calls of `benchmarks/gpu.sh`, together
    python benchmarks/summary.py                                    # only the README's table, from the results there are

A subject is a folder of benchmarks (kernels, step) or a part of gpu.sh.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu.journal import read
from benchmarks.gpu.run import versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "benchmarks/results", ROOT / "kernels/README.md"
MARKS = ("<!-- benchmarks: written by benchmarks/summary.py -->", "<!-- end of benchmarks -->")
Result = dict[str, Any]

SPEEDS = ("linear_logprob", "linear_policy_loss", "logprob_from_logits", "policy_loss")
OPERATIONS = ("linear_logprob forward", "linear_logprob forward+backward", "linear_policy_loss", "logprob_from_logits forward")
OPERATIONS += ("logprob_from_logits forward+backward", "policy_loss")


def hardware(cpu: dict[str, Any]) -> tuple[str, str]:
    """A short name for files, and what it is."""
    processor = f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count')} cores"
    if not torch.cuda.is_available():
        return f"cpu-{cpu.get('count')}-cores", processor
    name = torch.cuda.get_device_name()
    return slug(name), f"{name}; {processor}"


def results(report: dict[str, Any]) -> dict[str, Result]:
    """One result per subject of pytest-benchmark's report."""
    slug, machine = hardware(report["machine_info"]["cpu"])
    head = {
        "date": date.today().isoformat(),
        "hardware": slug,
        "machine": machine,
        "versions": ", ".join(f"{package} {number}" for package, number in versions().items()),
    }
    command = "bash benchmarks/gpu.sh" if torch.cuda.is_available() else "make benchmark"
    head |= {"commit": report["commit_info"]["id"][:10], "command": command}
    found: dict[str, Result] = {}
    for benchmark in report["benchmarks"]:
        _, subject, file = benchmark["fullname"].split("::")[0].split("/")
        extra = benchmark["extra_info"]
        named = {
            "test": benchmark["name"].split("[")[0].removeprefix("test_"),
            "case": benchmark["param"],
            "parameters": benchmark["params"],
        }
        seconds = {f"{key} s": benchmark["stats"][key] for key in ("median", "min", "max")}
        result = found.setdefault(subject, head | {"subject": subject, "rows": [], "skipped": []})
        result["rows"].append(extra.get("row", named) | {"file": file, "facts": extra.get("facts", seconds | extra)})
    for skipped in report.get("skipped", []):
        if (subject := skipped["name"].split("/")[1]) in found:
            found[subject]["skipped"].append(skipped)
    return found


def results_of_calls(paths: list[Path]) -> dict[str, Result]:
    """One result per part of `gpu.sh`; where a figure was taken again, by the same call or a later one, the later stands."""
    lines = [line | {"file": path.name} for path in paths for line in read(path)]
    found: dict[str, Result] = {}
    for line in lines:
        values = line.get("values", {})
        if line["name"] == "machine":
            head = {"date": values.pop("date"), "hardware": slug(line["card"]), "machine": f"{line['card']}; {values.pop('processor')}"}
            head |= {"versions": packages(values), "commit": line["commit"], "command": f"bash benchmarks/gpu.sh {line['part']}"}
            found.setdefault(line["part"], {"subject": line["part"], "rows": [], "skipped": []}).update(head)
            continue
        rows, skipped = found[line["part"]]["rows"], found[line["part"]]["skipped"]
        if line["status"] != "started":
            skipped[:] = [old for old in skipped if old["name"] != line["name"]]
        if line["status"] == "ok" and values:
            row = line.get("row") or {"test": "figures", "case": line["name"], "parameters": {"name": line["name"]}}
            rows[:] = [old for old in rows if (old["test"], old["case"]) != (row["test"], row["case"])]
            rows.append(row | {"file": line["file"], "facts": values})
        elif line["status"] not in ("ok", "started"):
            skipped.append({"name": line["name"], "reason": f"{line['status']}: {line.get('reason', '')}"})
    return found


def packages(found: dict[str, str]) -> str:
    return ", ".join(f"{package} {number}" for package, number in found.items())


def slug(card: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def number(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(result: Result) -> str:
    """Head, one table per test, since each measures facts of its own, and what did not run."""
    parts = [f"# {result['subject']}, {result['date']}, {result['machine']}"]
    parts.append(f"Commit {result['commit']}; {result['versions']}.\nCommand: `{result['command']}`.")
    for test in dict.fromkeys(row["test"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["test"] == test]
        facts = list(dict.fromkeys(key for row in rows for key in row["facts"]))
        lines = [["case", *facts], ["---"] * (1 + len(facts))]
        lines += [[str(row["case"]), *(number(row["facts"].get(fact)) for fact in facts)] for row in rows]
        parts.append(f"## {test}\n\n" + "\n".join(map(line, lines)))
    if result["skipped"]:
        parts.append("## Not run\n\n" + "\n".join(f"- {s['name'].split('::')[-1]}: {s['reason']}" for s in result["skipped"]))
    return "\n\n".join(parts) + "\n"


def operation(row: dict[str, Any]) -> str:
    return f"{row['test']} {row['parameters'].get('direction', '')}".strip()


def readme_rows(result: Result) -> list[list[str]]:
    """Our row of each case, beside the fastest peer that ran the same case."""
    lines = []
    for row in result["rows"]:
        if row["parameters"]["name"] != "polaris" or row["test"] not in SPEEDS:
            continue
        same = {key: value for key, value in row["parameters"].items() if key != "name"}
        others = [r for r in result["rows"] if r["test"] == row["test"] and r["parameters"] == same | {"name": r["parameters"]["name"]}]
        peers = [r for r in others if not r["parameters"]["name"].startswith("polaris") and "ours is faster by" in r["facts"]]
        fastest = min(peers, key=lambda r: r["facts"]["ours is faster by"], default=None)
        beside = "" if fastest is None else f"{fastest['parameters']['name']}: {number(fastest['facts']['ours is faster by'])}"
        shape = ", ".join(str(v) for key, v in same.items() if key != "direction")
        facts = [number(row["facts"].get(key)) for key in ("ms", "% of bound", "peak GiB", "log-prob error")]
        lines.append([result["machine"].split(";")[0], operation(row), shape, *facts, beside])
    return lines


def newest(pattern: str) -> Result | None:
    paths = sorted(RESULTS.glob(pattern), key=lambda path: path.stem[-10:])
    return json.loads(paths[-1].read_text()) if paths else None


def write_readme() -> None:
    """The newest result on a GPU and on a CPU, between the README's marks."""
    head = ["hardware", "operation", "case", "ms", "% of bound", "peak GiB", "log-prob error", "time of the fastest peer by ours"]
    lines = [head, ["---"] * len(head)]
    gpu, cpu = newest("kernels_nvidia*.json"), newest("kernels_cpu*.json")
    measured = readme_rows(gpu) if gpu else []
    missing = [name for name in OPERATIONS if name not in {row[1] for row in measured}]
    lines += measured + [["NVIDIA H200", name, "40,960 rows", "not yet measured", "", "", "", ""] for name in missing]
    lines += readme_rows(cpu) if cpu else []
    before, after = README.read_text().split(MARKS[0])[0], README.read_text().split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}\n" + "\n".join(map(line, lines)) + f"\n{MARKS[1]}{after}")


def main(paths: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    calls = [Path(path) for path in paths if path.endswith(".jsonl")]
    reports = [results(json.loads(Path(path).read_text())) for path in paths if not path.endswith(".jsonl")]
    for found in [*reports, results_of_calls(calls)]:
        for subject, result in found.items():
            target = RESULTS / f"{subject}_{result['hardware']}_{result['date']}"
            target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            target.with_suffix(".md").write_text(markdown(result))
            print(f"wrote {target.relative_to(ROOT)}.json and .md")
    write_readme()


if __name__ == "__main__":
    main(sys.argv[1:])
