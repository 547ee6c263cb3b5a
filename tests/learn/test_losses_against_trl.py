"""Value and gradient of every loss against TRL's own `GRPOTrainer._compute_loss` on the padded form of the same tokens."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from objectives import Tokens, objective

from polaris.config.algorithm import AlgorithmConfig
from polaris.learn.aggregate import Counts, aggregate_of, denominator

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")

LENGTHS = (5, 1, 9, 3)
LONGEST = 12


def trl_loss(logprob, old, advantage, weight, mask, reference=None, **settings):
    """TRL's loss of one batch: its function, given the log-probs in place of a model's forward pass."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprob, torch.zeros_like(logprob), None),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics=defaultdict(lambda: defaultdict(list)),
        args=SimpleNamespace(delta=settings.pop("delta", None), steps_per_generation=1, use_bias_correction_kl=False),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        beta=settings.pop("beta", 0.0),
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        _entropy_bonus_enabled=False,
        **{"importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.28} | settings,
    )
    inputs = {"prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask}
    inputs |= {
        "advantages": advantage,
        "old_per_token_logps": old,
        "importance_sampling_ratio": weight,
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": reference,
    }
    inputs["ref_per_token_logps"] = reference
    loss = grpo_trainer.GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (AlgorithmConfig(loss="dapo", dual_clip="off"), {"loss_type": "dapo"}),
        (AlgorithmConfig(loss="dapo", dual_clip=1.5), {"loss_type": "dapo", "delta": 1.5}),
        (AlgorithmConfig(loss="grpo", clip_high=0.2), {"loss_type": "grpo", "epsilon_high": 0.2}),
        (AlgorithmConfig(loss="dr_grpo"), {"loss_type": "dr_grpo"}),
        (
            AlgorithmConfig(loss="gspo", clip_low=0.03, clip_high=0.04, correction="off"),
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.03, "epsilon_high": 0.04},
        ),
        (AlgorithmConfig(loss="dapo", dual_clip="off", kl="k3", kl_coefficient=0.3), {"loss_type": "dapo", "beta": 0.3}),
        (AlgorithmConfig(loss="grpo", kl="k3", kl_coefficient=0.1), {"loss_type": "grpo", "beta": 0.1}),
        (AlgorithmConfig(loss="dapo", dual_clip="off", aggregate="sequence"), {"loss_type": "grpo"}),
        (AlgorithmConfig(loss="grpo", aggregate="constant"), {"loss_type": "dr_grpo"}),
        (AlgorithmConfig(loss="grpo", aggregate="token"), {"loss_type": "dapo"}),
        (AlgorithmConfig(loss="cispo", clip_low=1.0, clip_high=0.3), {"loss_type": "cispo", "epsilon_high": 1.3}),
    ],
    ids=lambda value: value.loss + f"-{value.dual_clip}" if isinstance(value, AlgorithmConfig) else "",
)
@pytest.mark.parametrize("seed", range(3))
def test_value_gradient_and_clip_fractions(config, settings, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(LENGTHS)
    mask = (torch.arange(max(LENGTHS)) < lengths[:, None]).long()
    logprob = -torch.rand(mask.shape, generator=generator, dtype=torch.float64) * 3
    old = logprob + 0.4 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    behaviour = old + 0.8 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    advantage = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)

    padded = logprob.clone().requires_grad_()
    weight = torch.ones_like(old) if config.correction == "off" else (old - behaviour).exp().clamp(max=2.0)
    reference = logprob + 0.5 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    expected, metrics = trl_loss(padded, old, advantage, weight, mask, reference, **settings)
    expected.backward()

    kept = mask.bool()
    packed = logprob[kept].requires_grad_()
    sequence = torch.arange(len(LENGTHS))[:, None].expand_as(mask)[kept]
    tokens = Tokens(logprob=packed, proximal_logprob=old[kept], advantage=advantage[sequence], sequence_lengths=lengths)
    counts = Counts(response_tokens=sum(LENGTHS), sequences=len(LENGTHS), prompts=1, max_response_tokens=LONGEST)
    share = {"sequence": 1 / lengths.double()[sequence.flatten()], "token": torch.ones_like(packed), "constant": torch.ones_like(packed)}
    given = {"reference_logprob": reference[kept]} if config.kl != "off" else {}
    given |= {"weight": share[config.aggregate].detach()} if config.aggregate else {}
    loss, statistics = objective(
        tokens, behaviour[kept], torch.zeros_like(packed), config, denominator(aggregate_of(config), counts), **given
    )
    loss.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(packed.grad, padded.grad[kept])
    if config.loss in ("dapo", "grpo", "dr_grpo"):
        values = statistics.compute()
        assert values["policy/clip_low"] == pytest.approx(metrics["clip_ratio/low_mean"])
        assert values["policy/clip_high"] == pytest.approx(metrics["clip_ratio/high_mean"])
