"""torchtitan's own GRPO and DAPO losses, once with its log-probs and once with the README's. Needs torchtitan: `make test-peers`."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("torchtitan") is None:
    pytest.skip("torchtitan is not installed; make test-peers installs it", allow_module_level=True)

README = Path(__file__).parents[2] / "kernels/README.md"


@pytest.fixture
def patch(monkeypatch):
    """What runs the lines of the README; torchtitan is itself again after the test."""
    from torchtitan.experiments.rl.losses import dapo

    monkeypatch.setattr(dapo, "compute_logprobs", dapo.compute_logprobs)
    [lines] = re.findall(r"```python\n(import torchtitan.*?)```", README.read_text(), re.DOTALL)
    return lambda: exec(lines, {})


def batch(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(*shape, 50, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(50, shape, generator=generator)
    tokens = {
        "generator_logprobs": torch.log_softmax(logits.detach().float(), -1).gather(-1, labels[..., None])[..., 0]
        + 0.4 * torch.randn(*shape, generator=generator),
        "advantages": torch.randn(*shape, generator=generator),
        "loss_mask": torch.rand(*shape, generator=generator) < 0.8,
    }
    labels[~tokens["loss_mask"]] = -100
    tokens["generator_logprobs"][..., 3] = torch.nan  # torchtitan drops a token that its engine did not score
    return logits, labels, tokens


def step(loss, dtype, shape=(2, 12)):
    logits, labels, tokens = batch(dtype, shape)
    value, metrics = loss(logits, labels, 17.0, **tokens)
    return torch.autograd.grad(value, logits)[0].float(), metrics


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["grpo", "dapo"])
def test_a_loss_of_the_readme_is_the_same(patch, kind, dtype, tolerance):
    from torchtitan.experiments.rl.losses import DAPOLoss, GRPOLoss

    loss = {"grpo": GRPOLoss.Config(), "dapo": DAPOLoss.Config(ratio_clip_high=0.28)}[kind].build()
    gradient, metrics = step(loss, dtype)
    patch()
    our_gradient, our_metrics = step(loss, dtype)
    assert metrics["loss/ratio_clipped_frac"] > 0
    print(f"gradient: relative difference {(our_gradient - gradient).norm() / gradient.norm():.1e}")
    assert (our_gradient - gradient).norm() <= tolerance * gradient.norm()
    torch.testing.assert_close(our_metrics, metrics, rtol=1e-5, atol=1e-5)
