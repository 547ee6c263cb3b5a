"""Two ranks save one checkpoint while they train: what each has written is in it before it is committed, and each gets its own back."""

import json
from pathlib import Path

import pytest
from programs import run_ranks

from polaris.checkpoint import layout

SCRIPT = Path(__file__).with_name("save_on_ranks.py")


@pytest.mark.distributed
def test_a_checkpoint_of_two_ranks_is_committed_after_both_have_written(tiny_qwen3, tmp_path):
    run_ranks(2, SCRIPT, tiny_qwen3, tmp_path)
    for rank in range(2):
        facts = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        files = facts.pop("files")
        assert {"rank-0.pt", "rank-1.pt", layout.STATE, layout.COMMIT, ".metadata"} <= set(files)
        assert sum(name.endswith(".distcp") for name in files) == 2, "one of each rank"
        assert facts == dict.fromkeys(("goes on", "heard", "state", "kept", "tensors", "draws", "failed"), True)
    (final,) = (tmp_path / "checkpoints").glob("step-000007")
    assert layout.complete_steps(tmp_path / "checkpoints") == [7]
    committed = json.loads((final / layout.COMMIT).read_text())["files"]
    assert {"rank-0.pt", "rank-1.pt", layout.STATE} <= committed.keys()
