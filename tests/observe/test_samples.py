import json

from polaris.observe.samples import RolloutRecorder, RolloutSample, choose


def sample(verdict: str, **changes) -> RolloutSample:
    values = {
        "prompt": "p", "response": "r", "ground_truth": "1", "verdict": verdict, "answer": "1", "reason": "", "reward": 1.0,
        "advantage": 0.5, "finish_reason": "stop", "length": 2, "version": 3,
    }  # fmt: skip
    return RolloutSample(**{**values, **changes})


def test_choice_is_a_mix_that_depends_on_the_step_alone():
    verdicts = ["wrong"] * 20 + ["correct"] * 3 + ["no_answer"] * 20
    chosen = choose(7, verdicts, 4)
    assert chosen == choose(7, verdicts, 4)
    assert chosen != choose(8, verdicts, 4)
    assert sum(verdicts[index] == "correct" for index in chosen) == 2
    assert len(set(choose(7, verdicts, 10))) == 10
    assert choose(7, ["wrong"] * 2, 4) in ([0, 1], [1, 0])
    assert choose(7, [], 4) == choose(7, verdicts, 0) == []


def test_a_repeated_step_replaces_its_file(tmp_path):
    recorder = RolloutRecorder(tmp_path)
    recorder.write(10, [sample("wrong")] * 3)
    recorder.write(10, [sample("correct", response="</think>\n\ud800", logprobs=(-0.123456, 0.0))])
    files = list((tmp_path / "rollouts").iterdir())
    assert [file.name for file in files] == ["step-000010.jsonl"]
    (row,) = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert (row["step"], row["verdict"], row["response"], row["logprobs"]) == (10, "correct", "</think>\n\ud800", [-0.1235, 0.0])


def test_no_samples_no_folder(tmp_path):
    RolloutRecorder(tmp_path).write(1, [])
    assert not (tmp_path / "rollouts").exists()
