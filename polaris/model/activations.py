"""What a forward pass leaves for the backward (`memory.activations`): all of it, or less against more work.

Every kind computes the same numbers: what is computed again is computed from the same inputs by the same operations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from polaris.errors import Refused
from polaris.model.architecture import decoder_layers

Activations = Literal["keep", "recompute_mlp", "recompute", "offload"]


def save_activations(model: PreTrainedModel, kind: Activations, device: torch.device) -> None:
    """Let the model's decoder layers leave no more than `kind` says, from now on, where it trains.

    Raises:
        Refused: "recompute_mlp" of a model whose layers have no `mlp`.
    """
    if kind == "recompute_mlp":
        for layer in decoder_layers(model):
            mlp = getattr(layer, "mlp", None)
            if not isinstance(mlp, nn.Module):
                raise Refused(f'memory.activations = "recompute_mlp": layers of {type(model).__name__} have no mlp; set it to "recompute"')
            kind_of: Any = type(mlp)
            mlp.__class__ = _recomputed(kind_of)
    elif kind != "keep":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if kind == "offload":
            inputs = HostInputs(device)
            for layer in decoder_layers(model):
                vars(layer)["_gradient_checkpointing_func"] = inputs.checkpoint


@cache
def _recomputed(kind: Any) -> Any:
    """Of a class of modules, the one whose modules are checkpointed as a whole: the same for all layers, since torch.compile would compile
    each one's own forward anew."""

    def __call__(self: nn.Module, *args: Any) -> Any:
        forward = partial(kind.__call__, self)
        return checkpoint(forward, *args, use_reentrant=False) if self.training else forward(*args)

    return type(kind.__name__, (kind,), {"__call__": __call__})


class HostInputs:
    """Inputs of checkpointed layers, which wait in host memory from a layer's forward to its backward.

    On a GPU they travel on a stream of their own: out while the next layers compute, and back one layer ahead of its backward, so that
    the device holds those of two layers. Host memory: layers x tokens of the pack x hidden size, in the compute dtype.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: Callable[[], _Input | None] = lambda: None

    def checkpoint(self, layer: Callable[..., Any], *args: Any) -> Any:
        """`layer(*args)`, computed again in the backward from what was brought back."""
        with saved_tensors_hooks(self._put, self._take):  # see the inputs alone: the checkpoint has hooks of its own for what is inside
            return checkpoint(layer, *args, use_reentrant=False)

    def _put(self, tensor: Tensor) -> Tensor | _Input:
        if tensor.ndim < 2:  # the checkpoint's own marks
            return tensor
        found = _Input(tensor, self._stream, self._last)
        self._last = weakref.ref(found)  # the graph alone keeps it, so that a forward without a backward leaves nothing
        return found

    def _take(self, kept: Tensor | _Input) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        found = kept.taken()
        if (before := kept.before()) is not None:
            before.bring()
        return found


class _Input:
    """One layer's input, in pinned memory where it has left a GPU; `before` is that of the layer before, which is wanted next."""

    def __init__(self, tensor: Tensor, stream: Any, before: Callable[[], _Input | None]) -> None:
        self._device, self._stream, self.before = tensor.device, stream, before
        self._back: Tensor | None = None
        if stream is None:
            self._host = tensor.clone()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # its memory is free for others when the copy is done

    def bring(self) -> None:
        """Begin to copy it back; a second call does nothing."""
        if self._back is not None:
            return
        if self._stream is None:
            self._back = self._host
            return
        with torch.cuda.stream(self._stream):
            self._back = self._host.to(self._device, non_blocking=True)

    def taken(self) -> Tensor:
        """The tensor, on its device."""
        self.bring()
        back, self._back = self._back, None
        assert back is not None
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
            back.record_stream(torch.cuda.current_stream())
        return back
