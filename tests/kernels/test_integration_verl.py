"""verl's own fused forward of a Qwen3, once with its functions and once with ours. Needs verl: `make test-peers`."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import Qwen3ForCausalLM

from polaris.embedded.model import new_model
from polaris.embedded.tokenizer import build_tokenizer
from polaris_kernels.integrations import verl as integration
from polaris_kernels.linear_logprob import linear_logprob

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed; make test-peers installs it", allow_module_level=True)


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Shapes of the hidden states that reached `linear_logprob`; verl and transformers are themselves again after the test."""
    seen = []
    monkeypatch.setattr(integration, "linear_logprob", lambda hidden, *a, **k: seen.append(hidden.shape) or linear_logprob(hidden, *a, **k))
    monkeypatch.setattr(Qwen3ForCausalLM, "forward", Qwen3ForCausalLM.forward)
    yield seen
    integration.unpatch()


def fused_step(backend, dtype):
    """Log-probs, entropies and gradients of a forward and backward pass through what verl makes of a model."""
    from verl.models.transformers.monkey_patch import patch_forward_with_backends

    torch.manual_seed(0)
    model = new_model(build_tokenizer()).to(dtype)
    patch_forward_with_backends(model, use_fused_kernels=True, fused_kernels_backend=backend)
    ids = torch.randint(10, 60, (2, 24), generator=torch.Generator().manual_seed(1))
    output = model(input_ids=ids, temperature=0.8, return_dict=True)
    shape = ids.shape
    (output.log_probs.view(shape)[:, :-1].sum() + 0.1 * output.entropy.view(shape)[:, :-1].float().square().sum()).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return output.log_probs.detach(), output.entropy.detach().float(), gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)], ids=["float32", "bfloat16"])
def test_the_fused_forward_is_the_same(calls, dtype, tolerance):
    logprob, entropy, gradients = fused_step("torch", dtype)
    assert not calls
    integration.patch()
    our_logprob, our_entropy, our_gradients = fused_step("torch", dtype)
    assert calls == [(48, 128)]
    print(f"log-prob differs by {(our_logprob - logprob).abs().max():.1e}, entropy by {(our_entropy - entropy).abs().max():.1e}")
    torch.testing.assert_close(our_logprob, logprob, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(our_entropy, entropy, rtol=tolerance, atol=tolerance)
    for name, gradient in gradients.items():
        error = (our_gradients[name] - gradient).norm() / gradient.norm()
        print(f"{name}: relative difference {error:.1e}")
        assert error < tolerance, name


def test_the_triton_backend_is_served_too(calls):
    logprob, entropy, gradients = fused_step("torch", torch.float32)
    integration.patch()
    our_logprob, our_entropy, our_gradients = fused_step("triton", torch.float32)
    assert calls == [(48, 128)]
    torch.testing.assert_close(our_logprob, logprob.flatten(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_entropy, entropy.flatten(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-3, atol=1e-4)


def test_a_head_split_over_the_vocabulary_is_left_to_verl(monkeypatch, calls):
    from verl.utils.kernel import linear_cross_entropy as module

    class Group:
        def size(self):
            return 2

    monkeypatch.setattr(module, "linear_cross_entropy", lambda *arguments: arguments[-1])
    integration.patch()
    group = Group()
    assert module.linear_cross_entropy(torch.zeros(2, 4), torch.zeros(8, 4), torch.zeros(2).long(), 1.0, "none", group) is group
    assert not calls


def test_unpatch_gives_back_the_originals():
    from verl.utils.experimental import torch_functional
    from verl.utils.kernel import linear_cross_entropy

    originals = torch_functional.FusedLinearForPPO, linear_cross_entropy.linear_cross_entropy
    integration.patch()
    assert torch_functional.FusedLinearForPPO is not originals[0]
    integration.unpatch()
    assert (torch_functional.FusedLinearForPPO, linear_cross_entropy.linear_cross_entropy) == originals


def test_an_unknown_version_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setattr("polaris_kernels.integrations.swap.version", lambda package: "0.99.0")
    with pytest.raises(ImportError, match=r"verl 0\.99\.0, .* install verl==0\.8\.0 or verl==0\.9\.0 or verl==0\.9\.1"):
        integration.patch()
