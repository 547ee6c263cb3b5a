"""All prompts of a configuration: several sets, a part held out, and epochs that mix sets by weight."""

import json
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.config.data import DataConfig, SetConfig
from polaris.config.recipe import EvalConfig
from polaris.config.schema import RunConfig
from polaris.config.training import TrainerConfig
from polaris.data.prompt_sets import load_held_out, load_training
from polaris.data.sampler import Sampler, open_sampler, open_statistics, parts_of_epoch
from polaris.errors import Refused
from polaris.run.record import level_facts, set_facts


class Characters:
    """A tokenizer of characters: only what `load_prompts` asks of one."""

    chat_template = "{}"

    def get_added_vocab(self):
        return {}

    def apply_chat_template(self, messages, **_):
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def __call__(self, texts, **_):
        return {"input_ids": [list(map(ord, text)) for text in texts]}


ROWS = [{"problem": f"What is {i} + 1?", "answer": i + 1} for i in range(200)]


@pytest.fixture
def load(tmp_path):
    def load(sets, trainer=1, seed=0, held=None, **data):
        tables = []
        for name, rows in sets.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            tables.append(SetConfig(path=str(tmp_path / f"{name}.jsonl"), weight=data.get("weights", {}).get(name)))
        data.pop("weights", None)
        config = RunConfig(
            data=DataConfig(sets=tuple(tables), **data),
            eval=EvalConfig(fraction=held),
            seed=seed,
            trainer=TrainerConfig(prompts_per_step=trainer),
        )
        training = load_training(config, Characters())
        return config, training, load_held_out(config, training, Characters())

    return load


def test_ids_of_several_sets_have_the_sets_name_in_front_and_those_of_one_do_not(load):
    _, both, _ = load({"a": ROWS[:3], "b": ROWS[:2]}, system_prompt="Think.", prompt_suffix="Box it.")
    assert [prompt.id for prompt in both.prompts] == ["a/row-1", "a/row-2", "a/row-3", "b/row-1", "b/row-2"]
    assert [prompt.set for prompt in both.prompts] == ["a"] * 3 + ["b"] * 2
    assert both.total == 5
    _, one, _ = load({"a": ROWS[:3]})
    assert [(prompt.id, prompt.set) for prompt in one.prompts] == [("row-1", ""), ("row-2", ""), ("row-3", "")]
    assert both.prompts[0].text == "<system>Think.<user>What is 0 + 1? Box it."
    assert [message["content"] for message in both.prompts[0].messages] == ["Think.", "What is 0 + 1? Box it."], "as rendered"
    assert both.prompts[0].row == ROWS[0]


def test_a_part_is_held_out_whatever_the_order_the_ids_and_the_rest_of_the_set(load):

    def texts(prompts):
        return {prompt.messages[-1]["content"].removesuffix(" now") for prompt in prompts}

    _, training, held = load({"a": ROWS}, held=0.3)
    assert 40 < len(held.prompts) < 80
    assert texts(training.prompts).isdisjoint(texts(held.prompts))
    assert len(training.prompts) + len(held.prompts) == 200
    _, _, other = load({"a": ROWS[::-1]}, held=0.3, prompt_suffix="now", system_prompt="s")
    assert texts(other.prompts) == texts(held.prompts)
    _, _, more = load({"a": [{"problem": f"{i} again", "answer": 1} for i in range(50)] + ROWS, "b": ROWS[:9]}, held=0.3)
    assert texts(held.prompts) <= texts(more.prompts)
    _, _, seed = load({"a": ROWS}, held=0.3, seed=1)
    assert texts(seed.prompts) != texts(held.prompts)
    dressed = [{"problem": f"  what is {i} +  1 ?", "answer": i + 1} for i in range(200)]
    _, left, out = load({"a": [*ROWS, *dressed]}, held=0.3)
    assert {t.split()[2] for t in texts(out.prompts)}.isdisjoint(t.split()[2] for t in texts(left.prompts)), "a copy is on its own side"


def test_each_set_has_a_part_held_out_or_the_fraction_is_refused(load):
    _, _, held = load({"a": ROWS[:100], "b": ROWS[100:]}, held=0.2)
    assert set(Counter(prompt.set for prompt in held.prompts)) == {"a", "b"}
    with pytest.raises(Refused, match=r"a\.jsonl: eval\.fraction leaves no prompt of 2 held out; change it"):
        load({"a": ROWS[:2]}, held=0.001)


SETS = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 40), st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.0, 7.0])), min_size=1)


@given(SETS, st.integers(0, 2**63))
def test_weighted_epochs_have_the_proportions_and_no_prompt_twice(sets, seed):
    sizes = {name: size for name, (size, _) in sets.items()}
    weights = {name: weight for name, (_, weight) in sets.items()}
    parts = parts_of_epoch(sizes, weights)
    names = [name for name, size in sizes.items() for _ in range(size)]
    sampler = Sampler(len(names), 1, seed, sets=names, weights=weights)
    total = sum(Fraction(str(weight)) for weight in weights.values())
    most = min(size * total / Fraction(str(weights[name])) for name, size in sizes.items())
    for epoch in range(3):
        taken = [sampler.next()[0] for _ in range(sum(parts.values()))]
        assert sampler.state()["epoch"] == epoch
        assert len(set(taken)) == len(taken)
        assert Counter(names[index] for index in taken) == parts
    for name, part in parts.items():
        share = most * Fraction(str(weights[name])) / total
        assert part == max(1, int(share)), "the largest epoch in proportion, of whole prompts"
    assert any(parts[name] == sizes[name] for name in sizes), "a larger one would take a prompt twice"


def test_every_epoch_takes_another_part_and_goes_on_from_its_two_integers():
    names = ["a"] * 100 + ["b"] * 20
    sampler = Sampler(120, 8, 3, sets=names, weights={"a": 1, "b": 1})
    epochs = [[index for _ in range(5) for index in sampler.next()] for _ in range(3)]
    assert len({frozenset(epoch) for epoch in epochs}) == 3
    assert len(set().union(*epochs)) > 40 + 20, "over epochs more than one part of the larger set is seen"
    again = Sampler(120, 8, 3, sets=names, weights={"a": 1, "b": 1})
    again.restore({"epoch": 1, "cursor": 16})
    assert again.next() == epochs[1][16:24]
    assert again.batches_left == 2


def test_sets_without_weights_are_taken_whole_in_the_order_of_one_set():
    plain, sets = Sampler(50, 7, 3), Sampler(50, 7, 3, sets=["a"] * 20 + ["b"] * 30)
    assert [plain.next() for _ in range(9)] == [sets.next() for _ in range(9)]


def test_a_set_that_has_no_prompt_left_is_out_of_the_proportion():
    assert parts_of_epoch({"a": 10, "b": 0, "c": 5}, {"a": 1, "b": 5, "c": 1}) == {"a": 5, "c": 5}
    assert parts_of_epoch({"a": 10, "b": 2}, {}) == {"a": 10, "b": 2}


def test_an_epoch_smaller_than_a_step_is_refused_with_its_parts(load):
    config, training, _ = load({"a": ROWS, "b": ROWS[:2]}, trainer=8, weights={"a": 1, "b": 1})
    with pytest.raises(Refused, match=r"weights of data\.sets an epoch holds 2 of a, 2 of b, which do not fill one step of 8; lower"):
        open_sampler(training.prompts, config, open_statistics(training.prompts, config.curriculum))


def test_records_have_the_share_and_accuracy_of_each_set_where_there_are_several():
    def group(name, *kinds):
        rollouts = [SimpleNamespace(verdict=SimpleNamespace(kind=kind)) for kind in kinds]
        return SimpleNamespace(prompt=SimpleNamespace(set=name), rollouts=rollouts)

    groups = [group("a", "correct", "wrong"), group("b", "wrong", "wrong"), group("a", "correct", "correct"), group("a", "wrong", "wrong")]
    assert set_facts(groups) == {"data/a/prompts": 0.75, "data/a/accuracy": 0.5, "data/b/prompts": 0.25, "data/b/accuracy": 0.0}
    assert set_facts([group("", "correct")]) == {}


def test_records_have_the_responses_and_accuracy_of_each_level_that_rows_name():
    def group(row, *kinds):
        rollouts = [SimpleNamespace(verdict=SimpleNamespace(kind=kind)) for kind in kinds]
        return SimpleNamespace(prompt=SimpleNamespace(row=row), rollouts=rollouts)

    gcd, other = {"task": "gcd", "level": 0}, {"task": "lcm", "level": 0}
    groups = [group(gcd, "correct", "wrong"), group(other, "wrong", "wrong"), group(gcd, "correct", "correct")]
    assert level_facts(groups) == {
        **{"level/gcd/0/responses": 4, "level/gcd/0/accuracy": 0.75},
        **{"level/lcm/0/responses": 2, "level/lcm/0/accuracy": 0.0},
    }
    words = [group({"level": "Level 5 (hard)"}, "correct", "no_answer", "wrong", "wrong")]
    assert level_facts(words, "eval/level") == {"eval/level/Level_5_hard_/responses": 4, "eval/level/Level_5_hard_/accuracy": 0.25}
    assert level_facts([group({"task": "gcd", "level": None}, "wrong"), group({"level": 0.37}, "wrong"), group({}, "wrong")]) == {}
