"""Which evaluation problems a run was trained on, and the accuracy without them."""

import json
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from polaris.checkpoint.run_folder import RunFolder, record_config
from polaris.config.data import DataConfig
from polaris.config.model import ModelConfig
from polaris.config.recipe import EvalConfig
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig, SftDataConfig, SftEvalConfig
from polaris.data.prompt_sets import load_training
from polaris.evaluation.contamination import accuracy_apart, contamination
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import load_suites
from polaris.supervised.examples import load_examples

PROBLEMS = {
    "a": "A farmer has seventeen sheep and nine goats, and sells every third animal in the spring of a dry year. How many are left?",
    "b": "What is 2+2?",
    "c": "Compute the area of a square whose diagonal is ten.",
}


def write(path, texts):
    path.write_text(
        "".join(json.dumps({"id": name, "problem": text, "answer": "1"}) + "\n" for name, text in texts.items()), encoding="utf-8"
    )
    return str(path)


@pytest.fixture
def settings(tmp_path):
    return EvalSettings(suite=(write(tmp_path / "set.jsonl", PROBLEMS),), samples_per_prompt=4, prompt_suffix="Say it in a box.")


def run_trained_on(folder, **data):
    record_config(RunFolder(folder), RunConfig(data=DataConfig(**data)))
    (folder / "export" / "step-000004").mkdir(parents=True, exist_ok=True)
    return folder


def test_a_model_that_is_no_run_is_compared_with_what_is_given_alone(settings, tmp_path):
    suites = load_suites(settings)
    assert contamination(settings, suites).describe() == {}
    given = write(tmp_path / "train.jsonl", {"1": "what is 2 + 2", "2": f"In 1990, {PROBLEMS['a'].lower()} Round down."})
    found = contamination(replace(settings, against=(given,)), suites)
    assert found.problems == {"set": ["a", "b"]}
    assert found.describe() == {"overlap": f"2 of set also in {given}"}
    with pytest.raises(ValueError, match="does not exist"):
        contamination(replace(settings, against=(str(tmp_path / "none.jsonl"),)), suites)


@pytest.mark.parametrize("model", ["run", "run@step-4", "run/export/step-000004"])
def test_a_run_and_its_exports_are_compared_with_what_it_was_trained_on(settings, tmp_path, model):
    run_trained_on(tmp_path / "run", path=write(tmp_path / "train.jsonl", {"1": PROBLEMS["c"], "2": "Other."}))
    found = contamination(replace(settings, model=ModelConfig(path=str(tmp_path / model))), load_suites(settings))
    assert found.problems == {"set": ["c"]}


def test_what_the_run_has_removed_by_itself_does_not_count_and_a_lost_set_is_named(settings, tmp_path):
    trained = write(tmp_path / "train.jsonl", PROBLEMS)
    run = run_trained_on(tmp_path / "run", path=trained, decontaminate=(write(tmp_path / "held.jsonl", {"x": PROBLEMS["a"]}),))
    of_run = replace(settings, model=ModelConfig(path=str(run)))
    assert contamination(of_run, load_suites(settings)).problems == {"set": ["b", "c"]}
    (tmp_path / "train.jsonl").unlink()
    found = contamination(of_run, load_suites(settings))
    assert (found.unread, found.problems) == ([trained], {"set": []})
    assert "cannot be read" in found.describe()["overlap"]


def test_a_fine_tuning_and_a_training_that_began_with_it_are_compared_with_its_conversations(settings, tmp_path):
    chat = [{"role": "user", "content": PROBLEMS["c"]}, {"role": "assistant", "content": "50"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"conversation": chat}) + "\n")
    data = SftDataConfig(path=str(tmp_path / "chats.jsonl"), columns={"messages": "conversation"})
    record_config(RunFolder(tmp_path / "sft"), SftConfig(data=data))
    exported = tmp_path / "sft" / "export" / "step-000008"
    exported.mkdir(parents=True)
    trained = RunConfig(model=ModelConfig(path=str(exported)), data=DataConfig(path=write(tmp_path / "train.jsonl", {"1": PROBLEMS["b"]})))
    record_config(RunFolder(tmp_path / "run"), trained)
    (tmp_path / "run" / "export").mkdir()
    own = replace(trained.data, decontaminate=(write(tmp_path / "held.jsonl", {"x": PROBLEMS["b"]}),))
    record_config(RunFolder(tmp_path / "later"), RunConfig(model=ModelConfig(path=str(tmp_path / "run")), data=own))
    (tmp_path / "later" / "export").mkdir()
    for model, problems in (("sft", ["c"]), ("run", ["b", "c"]), ("later", ["b", "c"])):
        found = contamination(replace(settings, model=ModelConfig(path=str(tmp_path / model))), load_suites(settings))
        assert found.problems == {"set": problems}


@pytest.fixture(scope="module")
def tokenizer():
    raw = Tokenizer(models.WordLevel({"?": 0, "<end>": 1}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for m in messages %}{{ m.role }} : {{ m.content }} <end> {% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", unk_token="?", chat_template=template)


def test_what_a_run_holds_out_of_its_own_set_was_not_trained_on(settings, tmp_path, tokenizer):
    data = DataConfig(path=write(tmp_path / "train.jsonl", PROBLEMS))
    config = RunConfig(data=data, eval=EvalConfig(fraction=0.5), seed=1)
    trained = {prompt.id for prompt in load_training(config, tokenizer).prompts}
    assert 0 < len(trained) < len(PROBLEMS)
    record_config(RunFolder(tmp_path / "run"), config)
    (tmp_path / "run" / "export").mkdir()
    found = contamination(replace(settings, model=ModelConfig(path=str(tmp_path / "run"))), load_suites(settings))
    assert found.problems == {"set": sorted(trained)}


def test_what_a_fine_tuning_holds_out_was_not_trained_on(settings, tmp_path, tokenizer):
    chats = {name: [{"role": "user", "content": text}, {"role": "assistant", "content": name}] for name, text in PROBLEMS.items()}
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats.values()))
    config = SftConfig(data=SftDataConfig(path=str(tmp_path / "chats.jsonl")), eval=SftEvalConfig(fraction=0.5), seed=1)
    count = len(load_examples(config, tokenizer)[0].examples)
    assert 0 < count < len(PROBLEMS)
    record_config(RunFolder(tmp_path / "sft"), config)
    (tmp_path / "sft" / "export").mkdir()
    found = contamination(replace(settings, model=ModelConfig(path=str(tmp_path / "sft"))), load_suites(settings))
    assert len(found.problems["set"]) == count


def test_the_accuracy_of_both_parts():
    found = accuracy_apart({"samples": 4, "correct": {"a": 4, "b": 0, "c": 2}}, ["a"])
    assert (found["within"]["mean"], found["without"]["mean"]) == (1.0, 0.25)
    assert found["without"]["low"] < 0.25 < found["without"]["high"]
    assert accuracy_apart({"samples": 4, "correct": {"a": 4}}, [])["within"] is None
