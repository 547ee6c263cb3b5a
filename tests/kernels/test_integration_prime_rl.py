"""prime-rl's own loss and head beside the README's. Needs a checkout, as prime-rl is on no index: `PRIME_RL=FOLDER make test-peers`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SOURCE = Path(os.environ.get("PRIME_RL", "/nowhere"), "src")
if not (SOURCE / "prime_rl/trainer/rl/loss.py").exists():
    pytest.skip("PRIME_RL names no checkout of prime-rl", allow_module_level=True)

README = Path(__file__).parents[2] / "kernels/README.md"


@dataclass
class CustomLossConfig:
    import_path: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class IPOLossConfig:
    """Without a KL term; no probability moves by more than 1, so nothing is masked."""

    ipo_threshold: float = 1.0
    adv_tau: float = 1.0
    kl_tau: float = 0.0


def subscripted(name: str) -> Any:
    return type(name, (), {"__class_getitem__": classmethod(lambda cls, item: cls)})


@pytest.fixture
def prime(monkeypatch):
    """The modules of the loss and the head, on stand-ins for what they import besides torch, and what runs the README's lines."""
    stands = {
        "beartype": {"beartype": None},
        "jaxtyping": {name: subscripted(name) for name in ("Bool", "Float", "Int")} | {"jaxtyped": lambda **_: lambda function: function},
        "prime_rl.configs.trainer": {
            "CustomLossConfig": CustomLossConfig,
            "IPOLossConfig": IPOLossConfig,
            "DefaultLossConfig": object,
            "LossConfig": object,
        },
        "prime_rl.utils.utils": {"import_object": lambda path: getattr(sys.modules[path.partition(".")[0]], path.partition(".")[2])},
        "prime_rl.utils.logger": {"get_logger": None},
        "prime_rl.utils.vlm": {"get_final_logit_softcapping": None},
    }
    for folder in ("", ".configs", ".utils", ".trainer", ".trainer.rl", ".trainer.models", ".trainer.models.layers"):
        package = ModuleType(f"prime_rl{folder}")
        package.__path__ = [str(SOURCE / f"prime_rl{folder}".replace(".", "/"))]
        monkeypatch.setitem(sys.modules, package.__name__, package)
    for name, values in stands.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    loss, head = (importlib.import_module(f"prime_rl.trainer.{name}") for name in ("rl.loss", "models.layers.lm_head"))
    monkeypatch.setattr(head.FusedOutputLinear, "forward", head.FusedOutputLinear.forward)
    [lines] = re.findall(r"```python\n(from prime_rl.*?)```", README.read_text(), re.DOTALL)
    module = ModuleType("your_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield loss, head, lambda: exec(lines, vars(module))
    for name in [name for name in sys.modules if name.startswith("prime_rl.trainer.")]:
        monkeypatch.delitem(sys.modules, name)


def sequences(weighted):
    """What `compute_loss` takes, of three sequences; the trainer's log-probs are leaves."""
    generator = torch.Generator().manual_seed(0)
    engine = [-4 * torch.rand(length, generator=generator) for length in (5, 9, 3)]
    ours = [(values + 0.3 * torch.randn(len(values), generator=generator)).requires_grad_() for values in engine]
    advantages = [torch.randn(len(values), generator=generator) for values in engine]
    masks = [torch.rand(len(values), generator=generator) < 0.8 for values in engine]
    weights = [(3 * torch.rand(len(values), generator=generator)).floor() for values in engine] if weighted else None
    return ours, (engine, None, advantages, masks, weights, None, None)


def differentiated(module, config, weighted):
    ours, rest = sequences(weighted)
    value, metrics = module.compute_loss(ours, *rest, module.setup_rl_loss_fn(config), 11, 1, 1)
    return value.detach(), torch.autograd.grad(value, ours), metrics


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_the_readme_without_bounds_is_prime_rls_without_a_trust_region(prime, weighted):
    loss, _, run_lines = prime
    value, gradient, _ = differentiated(loss, IPOLossConfig(), weighted)
    run_lines()
    unbounded = {"clip_low": 1e6, "clip_high": 1e6, "dual_clip": 0.0}
    our_value, our_gradient, _ = differentiated(loss, CustomLossConfig("your_module.clipped_loss", unbounded), weighted)
    torch.testing.assert_close(our_value, value)
    torch.testing.assert_close(our_gradient, gradient)


def test_its_bounds_are_those_of_the_settings(prime):
    loss, _, run_lines = prime
    run_lines()
    settings = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 0.0}
    value, gradient, metrics = differentiated(loss, CustomLossConfig("your_module.clipped_loss", settings), weighted=False)
    ours, (engine, _, advantages, masks, *_) = sequences(weighted=False)
    terms = []
    for policy, behaviour, advantage, mask in zip(ours, engine, advantages, masks, strict=True):
        ratio = (policy - behaviour).double().exp()
        terms.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)[mask].sum())
    expected = torch.stack(terms).sum() / 11
    torch.testing.assert_close(value, expected.float())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, ours))
    assert len(metrics["clip_high"]) == 3
    assert metrics["clip_high"].max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)], ids=["float32", "bfloat16"])
def test_the_head_of_the_readme_is_the_same(prime, dtype, tolerance):
    _, module, run_lines = prime
    generator = torch.Generator().manual_seed(0)
    head = module.FusedOutputLinear(16, 50, chunk_size=8)
    head.weight.data = torch.randn(50, 16, generator=generator).to(dtype)
    hidden = torch.randn(1, 20, 16, generator=generator).to(dtype).requires_grad_()
    labels, temperature = torch.randint(50, (1, 20), generator=generator), 0.5 + torch.rand(1, 20, generator=generator)

    def run():
        output = head(hidden, labels=labels, temperature=temperature)
        return output["logprobs"], output["entropy"], *torch.autograd.grad(output["logprobs"].sum(), (hidden, head.weight))

    theirs = run()
    run_lines()
    for ours, expected in zip(run(), theirs, strict=True):
        print(f"relative difference {(ours - expected).norm() / expected.norm():.1e}")
        assert (ours.float() - expected.float()).norm() <= tolerance * expected.float().norm()
