import pytest
import torch

from polaris.distributed.mesh import World
from polaris.evaluation.folder import claimed
from polaris.evaluation.samples import Key, Sample, SampleFile

ALONE = World(rank=0, size=1, device=torch.device("cpu"), mesh=None)


def test_one_evaluation_at_a_time(tmp_path):
    with (
        claimed(tmp_path, {"seed": 0}, ALONE),
        pytest.raises(ValueError, match="in use by another evaluation"),
        claimed(tmp_path, {"seed": 0}, ALONE),
    ):
        pass
    with claimed(tmp_path, {"seed": 0}, ALONE):
        pass


def test_settings_bind_once_there_is_a_sample_and_sets_may_be_more_or_fewer(tmp_path):
    a, b, other = ({"sha256": digest} for digest in "abc")
    for seed in (0, 1):
        with claimed(tmp_path, {"seed": seed, "sets": {"a": other}}, ALONE):
            pass
    with claimed(tmp_path, {"seed": 1, "sets": {"a": a}}, ALONE):
        pass
    file = SampleFile(tmp_path / "rope-1", 0)
    file.append(Sample(key=Key("a", "p", 0), seed=0, response="", tokens=1, finish_reason="stop"), "1")
    file.close()
    for sets in ({"a": a}, {"a": a, "b": b}, {"b": other}, {}):  # no sample of b is there yet
        with claimed(tmp_path, {"seed": 1, "sets": sets}, ALONE):
            pass
    with (
        pytest.raises(ValueError, match=r"\(seed: 1 -> 2; sets\.a\.sha256: 'a' -> 'c'\)"),
        claimed(tmp_path, {"seed": 2, "sets": {"a": other}}, ALONE),
    ):
        pass


@pytest.mark.parametrize("record", [None, "{"])
def test_samples_of_unknown_settings_are_nobodys(tmp_path, record):
    (tmp_path / "samples-rank0.jsonl").write_text("{}\n")
    if record:
        (tmp_path / "identity.json").write_text(record)
    with pytest.raises(ValueError, match="move the folder away"), claimed(tmp_path, {"seed": 0}, ALONE):
        pass


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose another one"), claimed(tmp_path / "file" / "run", {}, ALONE):
        pass
