import random
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import programs
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import polaris.embedded
from polaris.embedded import build as build_module
from polaris.embedded import task
from polaris.embedded.build import build
from polaris.embedded.tokenizer import build_tokenizer
from polaris.errors import RunFailed


@pytest.fixture(scope="module", autouse=True)
def forked_fine_tuning(tmp_path_factory):
    """The fine-tuning runs without its imports; the model that is built for other tests has a real start."""
    python = programs.forked_python(tmp_path_factory.mktemp("forked"))
    with patch.object(build_module, "sys", SimpleNamespace(executable=python, stderr=sys.stderr)):
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("embedded"), steps=5)


def expression(problem):
    return re.fullmatch(r"Compute (\d+(?:[+-]\d)+)\.", problem.text).group(1)


def work_of(response):
    """The word in front, the written lines of work such as `47+8=55`, and what is boxed."""
    word, first, rest, boxed = re.fullmatch(r"<think>(\w+):(\d+)([^<]*)</think>\\boxed\{(\d+)\}", response).groups()
    steps = re.findall(r"([+-]\d)[=:](\d+)", rest)
    starts = [first, *(total for _, total in steps)]
    return word, [(start + change, int(total)) for start, (change, total) in zip(starts, steps, strict=False)], int(boxed)


def test_answers_and_every_line_of_work_agree_with_python():
    train, test = task.problem_sets()
    assert len(train) == 4096
    assert len(test) == 256
    for problem in train + test:
        value = eval(expression(problem))
        assert problem.answer == str(value)
        for response in (task.solution(problem), task.solution(problem, random.Random(value))):
            word, lines, boxed = work_of(response)
            assert (word in task.RIGHT_WORDS, boxed, len(lines)) == (True, value, len(problem.changes))
            assert all(eval(line) == total for line, total in lines)


def test_a_mistake_forgets_the_carries_after_an_odd_start_or_stops_half_way():
    for problem in task.problem_sets()[1]:
        word, lines, boxed = work_of(task.mistake(problem, random.Random(0)))
        assert word in task.WRONG_WORDS
        assert boxed == lines[-1][1]
        if all(eval(line) == total for line, total in lines):
            assert len(lines) == (len(problem.changes) + 1) // 2
        else:
            assert problem.start % 2
            assert len(lines) == len(problem.changes)
            assert boxed != int(problem.answer)
            assert all(eval(line) % 10 == total % 10 and int(re.match(r"\d+", line)[0]) // 10 == total // 10 for line, total in lines)


def test_problem_sets_are_disjoint_distinct_and_reproducible():
    train, test = task.problem_sets()
    assert len({p.text for p in train + test}) == len(train) + len(test)
    assert (train, test) == task.problem_sets()
    assert {len(p.changes) for p in test} == set(range(1, 11))


def test_demonstrations_never_show_a_held_out_problem():
    _, test = task.problem_sets()
    held_out = frozenset(test)
    assert any(problem in held_out for problem, _ in islice(task.demonstrations(0, frozenset()), 20000))
    assert not any(problem in held_out for problem, _ in islice(task.demonstrations(0, held_out), 20000))


def test_demonstrations_take_a_right_way_as_often_as_the_length_of_the_problem_says():
    taken = {operations: [] for operations in range(1, 11)}
    signs = ""
    for problem, response in islice(task.demonstrations(1, frozenset()), 20000):
        word, _, _ = work_of(response)
        taken[len(problem.changes)].append(word in task.RIGHT_WORDS)
        signs += "".join(re.findall(r"(?<=\d)[=:](?=\d)", response))
    assert [sum(right) / len(right) for right in taken.values()] == pytest.approx(list(task.RIGHT_SHARE), abs=0.04)
    assert signs.count(":") / len(signs) == pytest.approx(task.COLON_SHARE, abs=0.02)


def test_tokenizer_keeps_any_text_and_shows_the_thinking_tags():
    tokenizer = build_tokenizer()
    train, _ = task.problem_sets()
    rng = random.Random(0)
    texts = [p.text for p in train[:500]] + [task.solution(p) for p in train[:500]]
    texts += ["".join(chr(rng.randrange(1, 0xD800)) for _ in range(40)) for _ in range(200)] + ["a  b \n <think>\t</think> 'x' ,y .z"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_saved_tokenizer_equals_the_built_one_and_renders_the_chat(built):
    tokenizer = AutoTokenizer.from_pretrained(built / "model")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Compute 1+2."}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|system|>Be brief.<|end|><|user|>Compute 1+2.<|end|><|assistant|>"
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert tokens == tokenizer.encode(text) == build_tokenizer().encode(text)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "Be brief.Compute 1+2."
    assert not tokenizer.apply_chat_template(messages, tokenize=False).endswith("<|assistant|>")


def test_checkpoint_loads_with_auto_classes_and_stops_at_the_end_token(built):
    model = AutoModelForCausalLM.from_pretrained(built / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(built / "model")
    assert model.config.model_type == "qwen3"
    assert model.config.tie_word_embeddings
    assert model.config.max_position_embeddings >= 512
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) <= model.config.vocab_size
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 1.2e6


def test_the_fine_tuning_gives_the_same_bits_also_in_a_rank_of_a_training_and_leaves_the_random_state(built, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    again = build(tmp_path, steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (built, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def responses(model, tokenizer, problems, temperature):
    """Right or not, [problems, 4]."""
    chats = [[{"role": "user", "content": problem.text}] for problem in problems]
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    torch.manual_seed(0)
    options = {"do_sample": True, "temperature": temperature, "top_k": 0, "num_return_sequences": 4, "max_new_tokens": 96}
    drawn = tokenizer.batch_decode(model.generate(**inputs, **options), skip_special_tokens=True)
    right = [
        text.endswith(f"\\boxed{{{problem.answer}}}") for problem, text in zip([p for p in problems for _ in range(4)], drawn, strict=True)
    ]
    return torch.tensor(right).float().view(-1, 4)


@pytest.mark.slow
def test_accuracy_of_the_base_holds_until_temperature_1_and_falls_beyond_as_a_pretrained_model_s():
    folder = Path(polaris.embedded.resolve("embedded:model"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    cool, warm, hot = (responses(model, tokenizer, task.problem_sets()[1][:80], t) for t in (0.2, 0.8, 1.6))
    assert 0.3 < cool.mean() < 0.6
    assert abs(warm.mean() - cool.mean()) < 0.06
    assert hot.mean() < 0.6 * warm.mean()
    assert warm.amax(1).mean() - warm.mean() > 0.12
    always, never = (warm.mean(1) == 1).float().mean(), (warm.mean(1) == 0).float().mean()
    assert never > always > 0.1


def test_a_second_build_reuses_the_first_and_another_recipe_does_not(built, monkeypatch):
    def refuse(*_):
        raise AssertionError("rebuilt")

    monkeypatch.setattr(build_module, "_write", refuse)
    assert build(built.parent, steps=5) == built
    with pytest.raises(AssertionError, match="rebuilt"):
        build(built.parent, steps=6)


def test_a_killed_build_leaves_nothing_that_counts_as_built(tmp_path, monkeypatch):
    cache, script = tmp_path / "cache", tmp_path / "script.py"
    script.write_text(
        "import os, sys; from pathlib import Path; from polaris.embedded import build, model;"
        "model.new_model = lambda *a: os.kill(os.getpid(), 9); build.build(Path(sys.argv[1]), steps=2)"
    )
    assert programs.run(script, cache).returncode == -9
    assert {path.suffix for path in cache.iterdir()} == {".partial", ".lock"}
    monkeypatch.setattr(build_module, "_fine_tune", lambda folder, steps: (folder / "model").mkdir())
    folder = build(cache, steps=2)
    assert {path.name for path in folder.iterdir()} == set(polaris.embedded.FILES.values())
    assert {path.suffix for path in cache.iterdir()} <= {"", ".lock"}


def test_a_fine_tuning_that_fails_says_why_and_is_not_taken_for_a_model(tmp_path, monkeypatch):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(build_module.CONFIG.read_text().replace("lr = 1.5e-3", "lr = -1"))
    monkeypatch.setattr(build_module, "CONFIG", wrong)
    with pytest.raises(RunFailed, match=r"status 2:\n.*optimizer\.lr"):
        build(tmp_path, steps=2)
    with pytest.raises(RunFailed, match="status 2"):
        build(tmp_path, steps=2)


def test_resolve_maps_its_names_and_nothing_else(built, monkeypatch):
    monkeypatch.setattr(build_module, "build", lambda: built)
    for name in polaris.embedded.FILES:
        assert Path(polaris.embedded.resolve(f"embedded:{name}")).exists()
    assert polaris.embedded.resolve("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    with pytest.raises(ValueError, match="embedded:model, embedded:train, embedded:test, embedded:untrained"):
        polaris.embedded.resolve("embedded:tset")


def test_importing_the_package_does_not_import_torch():
    script = "import sys, polaris.embedded; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
