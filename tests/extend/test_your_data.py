"""docs/extend.md, "Data in a format of your own": the user's columns, golds, function and sets reach training through the real engine."""

import json

import pytest
from recipes import records, train, write_recipe
from transformers import AutoTokenizer

from polaris.embedded import resolve
from polaris.model.load import load_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_sets_of_the_users_are_trained_on_in_proportion_and_a_part_is_held_out(tmp_path):
    folder = write_recipe("Data in a format of your own", tmp_path)
    template = f"{AutoTokenizer.from_pretrained(resolve('embedded:model')).chat_template}{{# mine #}}"
    (folder / "chat.jinja").write_text(template)
    run = train(folder, "--model.chat_template=chat.jinja")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "sums (" in run.stdout
    base, *steps = records(folder)
    assert 5 <= base["eval/problems"] <= 25, "about a quarter of 52"
    assert {"eval/data/sums/accuracy", "eval/data/longer/accuracy"} <= base.keys()
    steps = [record for record in steps if "reward/mean" in record]
    assert sum(record["data/longer/prompts"] for record in steps) / 3 == pytest.approx(2 / 3, abs=0.25)
    assert max(record["data/longer/accuracy"] for record in steps) > 0, "the golds behind #### are those of the problems"
    recorded = json.loads((folder / "runs/sums/config.json").read_text())
    assert recorded["data"]["sets"][1]["path"] == "mine:longer"
    assert load_tokenizer(folder / "runs/sums/export/step-000003").chat_template == template
