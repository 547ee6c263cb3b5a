"""The step from hidden states to the logits of a model's softmax: measured on its forward, not read from setting names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from polaris.errors import Refused, in_one_line

_SMALL, _LARGE = 1e-6, 1e9
_TOLERANCE = 1e-5


class _Decoded(BaseModelOutputWithPast):
    """A decoder's output; caches and other fields are None under any name."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass(frozen=True, slots=True)
class LogitForm:
    """logits = cap(scale * (hidden @ weight.T + bias)), with cap(x) = softcap * tanh(x / softcap); `softcap` 0 means no cap.

    Cohere's `logit_scale`, Granite's 1 / `logits_scaling`, Gemma's `final_logit_softcapping`.
    """

    scale: float = 1.0
    softcap: float = 0.0

    def __call__(self, product: Tensor) -> Tensor:
        """Logits of the products `hidden @ weight.T + bias`."""
        scaled = self.scale * product
        return self.softcap * torch.tanh(scaled / self.softcap) if self.softcap else scaled

    @property
    def kernel_softcap(self) -> float | None:
        """The cap for callers that divide by `temperature` afterwards."""
        return self.softcap / self.scale if self.softcap else None

    def temperature(self, temperature: Tensor) -> Tensor:
        """The divisor of unscaled logits, capped with `kernel_softcap`, that gives this form's logits at `temperature`."""
        return temperature / self.scale if self.scale != 1 else temperature


def measure_form(model: PreTrainedModel) -> LogitForm:
    """The form of the model's logits, measured on its forward with a decoder and a head that give known numbers; no weight is needed.

    Raises:
        Refused: it is not a `LogitForm` of one linear head; the fused head computes nothing else.
    """
    head, name = model.get_output_embeddings(), type(model).__name__
    if not isinstance(head, nn.Linear):
        raise Refused(f"{name} has no single linear output head; Polaris trains causal language models with one")
    slope, cap = (_logits(model, [x], 0.0)[0, 0] for x in (_SMALL, _LARGE))
    scale = float(slope) / _SMALL
    softcap = float(cap) if abs(float(cap) - scale * _LARGE) > _TOLERANCE * _LARGE * abs(scale) else 0.0
    form = LogitForm(_rounded(scale), _rounded(softcap))
    products = [-80.0, -3.0, -0.5, 0.0, 0.25, 7.0, 300.0]
    bias = 0.75 if head.bias is not None else 0.0
    found, expected = _logits(model, products, bias), form(torch.tensor(products, dtype=torch.float64) + bias)
    if not (
        scale > 0 and found.shape[1] == head.out_features and torch.allclose(found, expected[:, None].expand_as(found), rtol=_TOLERANCE)
    ):
        raise Refused(f"{name} does more between head and logits than scale, bias and soft cap, which Polaris cannot train")
    return form


def _rounded(value: float) -> float:
    """The value without the noise of float32 arithmetic."""
    return float(f"{value:.7g}") if math.isfinite(value) else value


def _logits(model: PreTrainedModel, products: list[float], bias: float) -> Tensor:
    """Logits [len(products), V] float64 if the head's products with the hidden states are `products`, and its bias is `bias`."""
    head: Any = model.get_output_embeddings()
    decoder: Any = model.get_decoder()
    hidden: Any = torch.tensor(products, dtype=torch.float64)[None, :, None].expand(1, -1, head.in_features)
    patches = {
        decoder: lambda *args, **kwargs: _Decoded(last_hidden_state=hidden),
        head: lambda x: (x.mean(-1, keepdim=True) + bias).expand(*x.shape[:-1], head.out_features).clone(),
    }
    try:
        for module, forward in patches.items():
            module.forward = forward
        with torch.no_grad():
            return model(input_ids=torch.zeros(1, len(products), dtype=torch.int64), use_cache=False).logits[0].double()
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError, KeyError) as error:
        raise Refused(f"{type(model).__name__} computes its logits in a way that Polaris does not support ({in_one_line(error)})") from None
    finally:
        for module in patches:
            module.__dict__.pop("forward", None)
