"""What an optimizer update should do, written out in float64: transformers for the model, plain arithmetic for loss, clipping and AdamW."""

import torch
from transformers import Qwen3ForCausalLM


class Float64:
    """A policy and its AdamW; `step` is one update of the dapo loss with truncated importance weights."""

    def __init__(self, folder, config):
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float64)
        self.config, self.updates = config, 0
        self.mean, self.square = ({n: torch.zeros_like(p) for n, p in self.model.named_parameters()} for _ in range(2))

    def logprobs(self, sample):
        """[n] of the response, at the sample's own temperature."""
        tokens = torch.tensor([*sample.prompt_tokens, *sample.rollout.tokens.tolist()])
        logits = self.model(tokens[None]).logits[0, :-1] / sample.rollout.temperature
        return logits.log_softmax(-1).gather(1, tokens[1:, None])[len(sample.prompt_tokens) - 1 :, 0]

    def loss(self, samples, old):
        """Mean over all tokens of w * max(-r A, -clip(r) A), at most -dual_clip * A where A < 0; and every ratio r."""
        algorithm, total, ratios = self.config.algorithm, torch.zeros((), dtype=torch.float64), []
        for sample, before in zip(samples, old, strict=True):
            ratio = (self.logprobs(sample) - before).exp()
            weight = (before - torch.from_numpy(sample.rollout.logprobs).double()).exp().clamp(max=algorithm.correction_bounds[1])
            clipped = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
            loss = torch.maximum(-ratio * sample.advantage, -clipped * sample.advantage)
            if sample.advantage < 0:
                loss = loss.clamp(max=-algorithm.dual_clip * sample.advantage)
            total = total + (weight * loss).sum()
            ratios.append(ratio.detach())
        return total / sum(len(sample.rollout.tokens) for sample in samples), torch.cat(ratios)

    def step(self, samples, old, lr):
        """Loss, gradient norm before clipping, and the ratios."""
        optimizer = self.config.optimizer
        self.model.zero_grad()
        loss, ratios = self.loss(samples, old)
        loss.backward()
        norm = sum(float(p.grad.square().sum()) for p in self.model.parameters()) ** 0.5
        self.updates += 1
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                gradient = p.grad * min(1.0, optimizer.grad_clip / norm)
                self.mean[name] += (1 - optimizer.beta1) * (gradient - self.mean[name])
                self.square[name] += (1 - optimizer.beta2) * (gradient**2 - self.square[name])
                mean = self.mean[name] / (1 - optimizer.beta1**self.updates)
                square = self.square[name] / (1 - optimizer.beta2**self.updates)
                if p.ndim > 1:
                    p -= lr * optimizer.weight_decay * p
                p -= lr * mean / (square.sqrt() + optimizer.eps)
        return float(loss.detach()), norm, ratios

    def weights(self):
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
