import pytest

from polaris.evaluation.samples import Key, Sample, SampleFile, mend, read_samples


def sample(number):
    return Sample(
        key=Key("set", "problem\u2028é", number), seed=2**62 + number, response=f"line\n{number}\ud800", tokens=3, finish_reason="stop"
    )


@pytest.mark.parametrize("torn", [b'{"set": "set", "prob', b'{"set": "set"}', b"\x00\xff"])
def test_a_torn_last_line_is_cut_off_and_the_rest_is_read(tmp_path, torn):
    for rank, numbers in ((0, (0, 1)), (3, (2,))):
        file = SampleFile(tmp_path, rank)
        for number in numbers:
            file.append(sample(number), ("1", 2.5))
        file.close()
    with (tmp_path / "samples-rank0.jsonl").open("ab") as file:
        file.write(torn)
    mend(tmp_path)
    again = SampleFile(tmp_path, 0)
    again.append(sample(3), "1")
    again.close()
    assert list(read_samples(tmp_path)) == [sample(number) for number in (0, 1, 3, 2)]


def test_a_line_that_is_no_sample_is_named(tmp_path):
    (tmp_path / "samples-rank0.jsonl").write_bytes(b'{"set": 1}\n')
    with pytest.raises(ValueError, match=r"samples-rank0.jsonl:1 is not a sample"):
        list(read_samples(tmp_path))
