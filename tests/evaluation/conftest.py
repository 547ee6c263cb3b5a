import json

import pytest
from evaluations import ENGINE, run

from polaris.data.sources import read_rows
from polaris.embedded import resolve


@pytest.fixture(scope="session")
def problems(tmp_path_factory):
    """Two small sets of the embedded task, as a word for --suite."""
    folder = tmp_path_factory.mktemp("sets")
    rows = [row for _, row in read_rows(resolve("embedded:test"), "test")]
    for name, chosen in (("first", rows[:24]), ("second", rows[24:40])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def options(problems):
    return (
        *ENGINE,
        "--suite",
        str(problems),
        "-n",
        "8",
        "--max-tokens",
        "128",
        "--temperature",
        "1",
        "--concurrent",
        "32",
        "--yarn",
        "1,1.5",
        "--against",
        str(problems / "second.jsonl"),
    )


@pytest.fixture(scope="session")
def reference(options, tmp_path_factory):
    """The folder of an evaluation that nothing interrupted."""
    output = tmp_path_factory.mktemp("reference")
    run(output, *options)
    return output
