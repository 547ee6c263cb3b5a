"""One decoder layer, forward and backward, on tensors without memory: what it keeps and needs as its own storages say.

    python -m benchmarks.plan.one_layer            # beside the plan's formula

torch's FakeTensorMode runs the model's layer. Attention is a stand-in with the tensors of FlashAttention-2, and fused norms, MLP and rope
are stand-ins with those of Liger 0.8.5, since neither runs without a GPU: what each saves and allocates was read in its source.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.plan.shapes import CONFIGS, shape
from polaris.model import attention
from polaris.plan.activations import layer

TOKENS = 8192


class Alive(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there were since `peak` was set."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def end(_) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, end)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.follow(leaf)
        return result


class _Attention(torch.autograd.Function):
    """FlashAttention-2's: it keeps q, k, v, output and a log-sum per head; the backward sums q's gradient in float32 and has gradients of
    k and v for each query head first."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[1], q.shape[0], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, _, _ = ctx.saved_tensors
        gradient = gradient.contiguous()
        work = [torch.empty(q.shape, dtype=torch.float32), torch.empty_like(q), torch.empty_like(q)]
        found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        del work
        return found


class _Norm(torch.autograd.Function):
    """Liger's RMSNorm: input and one number per row are kept; the gradient is written over that of the output."""

    @staticmethod
    def forward(ctx, x, weight):
        x = x.contiguous()
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous(), torch.empty_like(ctx.saved_tensors[1])


class _SwiGLU(torch.autograd.Function):
    """Liger's: gate and up are kept, and their gradients are written over them."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.saved_tensors


class _Rope(torch.autograd.Function):
    """Liger's: in place of queries and keys."""

    @staticmethod
    def forward(ctx, q, k):
        return q.view_as(q), k.view_as(k)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients


@contextmanager
def _stand_ins(model: nn.Module, fused: bool) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(attention, "_grouped_attention", lambda q, k, v, *_: _Attention.apply(q, k, v)))
        if fused:
            modeling = sys.modules[type(model).__module__]
            stack.enter_context(mock.patch.object(modeling, "apply_rotary_pos_emb", lambda q, k, *_: _Rope.apply(q, k)))
            for module in model.modules():
                if type(module).__name__.endswith("RMSNorm"):
                    module.forward = lambda x, module=module: _Norm.apply(x, module.weight)
                elif hasattr(module, "gate_proj"):
                    module.forward = lambda x, own=module: own.down_proj(_SwiGLU.apply(own.gate_proj(x), own.up_proj(x)))
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Numbers per token, the layer's input left out: kept between forward and backward, output included, and most in the
    backward, with the gradients of output and weights."""

    kept: float
    backward: float


def trace(name: str, fused: bool, tokens: int = TOKENS, dtype: torch.dtype = torch.bfloat16) -> Found:
    """One layer of the model of that name."""
    values = {key: value for key, value in CONFIGS[name].items() if key not in ("architectures", "model_type")}
    config = AutoConfig.for_model(CONFIGS[name]["model_type"], **values | {"num_hidden_layers": 1})
    with FakeTensorMode(), mock.patch.object(nn.init, "kaiming_uniform_"), mock.patch.object(nn.init, "normal_"):
        with mock.patch("transformers.PreTrainedModel.init_weights"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.NAME)
        hidden = torch.empty(1, tokens, config.hidden_size, dtype=dtype, requires_grad=True)
        table = torch.empty(1, tokens, 128, dtype=dtype)
        layout = attention.PackLayout([tokens], torch.empty(2, dtype=torch.int32))
        alive = Alive()
        for tensor in (hidden, table, *model.parameters()):
            alive.follow(tensor)
        before = alive.now
        with _stand_ins(model, fused), alive:
            (one,) = model.model.layers
            result = one(hidden, position_embeddings=(table, table), attention_mask=None, layout=layout)
            output = result if isinstance(result, Tensor) else result[0]
            kept = alive.now - before
            gradient = torch.empty_like(output)
            alive.peak = alive.now
            output.backward(gradient)
    return Found(kept=kept / dtype.itemsize / tokens, backward=(alive.peak - before) / dtype.itemsize / tokens)


def planned(name: str, fused: bool, tokens: int = TOKENS, dtype: torch.dtype = torch.bfloat16) -> Found:
    """The same by the plan's formula."""
    sizes = shape(name)
    one = layer(sizes, fused, dtype.itemsize)
    kept = one.attention + one.mlp + sizes.hidden
    mlp = kept + one.mlp_backward + sizes.hidden * sizes.inner / tokens
    gradients = (sizes.layer - 2 * sizes.hidden * sizes.query) / tokens
    return Found(kept=kept, backward=max(mlp, one.attention + one.attention_backward + sizes.hidden + gradients))


def main() -> None:
    print("| model | modules | kept, traced | planned | backward, traced | planned |\n" + "|---" * 6 + "|")
    for name in CONFIGS:
        for fused in (True, False):
            a, b = trace(name, fused), planned(name, fused)
            kind = "fused" if fused else "transformers'"
            print(f"| {name} | {kind} | {a.kept:,.0f} | {b.kept:,.0f} | {a.backward:,.0f} | {b.backward:,.0f} |")


if __name__ == "__main__":
    main()
