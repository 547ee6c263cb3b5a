import json

import pytest
from programs import run
from separate_job import HERE, MEASURED, SMALL

from polaris.embedded import resolve


@pytest.fixture
def fork_engines(monkeypatch):
    """Engines' processes begin without their imports: see `forked_engines`."""
    monkeypatch.setenv("FORK_ENGINES", "1")


@pytest.fixture(scope="session")
def problems(tmp_path_factory):
    """Some the model nearly always solves, some it seldom does."""
    pytest.importorskip("vllm")
    with open(resolve("embedded:train"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    folder, paths = tmp_path_factory.mktemp("data"), []
    for key, places in (("data", range(8)), ("eval", range(8, 10))):
        chosen = [[row for row in rows if row["difficulty"] == difficulty][place] for difficulty in (3, 4, 5, 6) for place in places]
        (folder / f"{key}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
        paths.append(f"--{key}.path={folder / key}.jsonl")
    return paths


@pytest.fixture(scope="session")
def colocated(problems, tmp_path_factory):
    """The folder of the job of `separate_job` on one rank, three steps."""
    root = tmp_path_factory.mktemp("colocated")
    run(HERE, f"--root={root}", *SMALL, *problems, MEASURED, "--eval.every=2", "--trainer.steps=3", check=True)
    return root
