"""Loss and gradient against transformers' own, whatever the packs."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from tuning import write_config

from polaris.config.load import load_job
from polaris.config.sft import SftConfig
from polaris.supervised.checks import examine
from polaris.supervised.examples import batch
from polaris.supervised.job import open_tuner


@pytest.mark.parametrize("tokens_per_pack", [32768, 60])
def test_loss_and_gradient_are_those_of_transformers(world, tmp_path, tokens_per_pack, monkeypatch):
    checked = examine(load_job(SftConfig, write_config(tmp_path), [f"--trainer.tokens_per_pack={tokens_per_pack}"]))
    examples = checked.data.examples[:6]
    tuner = open_tuner(checked, world)
    gradients = {}

    def keep():
        gradients.update({name: parameter.grad.full_tensor().clone() for name, parameter in tuner.policy.model.named_parameters()})

    monkeypatch.setattr(tuner.optimizer, "step", keep)
    result = tuner.update(examples, 1)

    model = AutoModelForCausalLM.from_pretrained(checked.model.folder, dtype=torch.float32)
    total = sum(one.trained for one in examples)
    loss = sum(
        model(
            torch.tensor(one.tokens[None]).long(),
            labels=torch.where(torch.tensor(one.mask), torch.tensor(one.tokens).long(), -100)[None],
            num_items_in_batch=total,
        ).loss
        for one in examples
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert tuner.loss(examples) == pytest.approx(loss.item(), rel=1e-6)


def test_an_epoch_takes_each_example_once(tmp_path):
    examples = list(range(10))
    seen = [one for start in range(0, 30, 6) for one in batch(examples, 3, start, 6)]
    epochs = [seen[0:10], seen[10:20], seen[20:30]]
    assert all(sorted(epoch) == examples for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
