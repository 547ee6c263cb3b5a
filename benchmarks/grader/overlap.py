"""Part 6: `polaris data check` on the two training sets against the five evaluation sets."""

from __future__ import annotations

import subprocess
import sys

from golds import DATA, EVALUATION, TRAINING
from report import Part


def measure() -> Part:
    against = [f"eval/{name}.parquet" for name in EVALUATION]
    reports = {}
    for name in TRAINING:
        command = [sys.executable, "-m", "polaris.cli", "data", "check", f"train/{name}.json", "--against", *against]
        reports[name] = subprocess.run(command, cwd=DATA, capture_output=True, text=True, check=True).stdout.strip()
    text = "\n\n".join(f"```\n{report}\n```" for report in reports.values())
    return Part(title="`polaris data check` against the evaluation sets", text=text, data=dict(reports))


if __name__ == "__main__":
    print(measure().text)
