"""Checks, on the meta device and without weights, that a model's architecture can be packed, sharded and trained."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PreTrainedConfig, PreTrainedModel

from polaris.errors import Refused, in_one_line
from polaris.model.attention import check_asked
from polaris.model.head import measure_form
from polaris.model.names import checkpoint_names

_WITNESS = "polaris_witness"
_NO_SETTING = "Polaris cannot train it with any setting; take a dense decoder of another family, such as Llama or Qwen3"


@dataclass(frozen=True, slots=True)
class _Witness:
    """Stands in for a pack's layout and records the modules that pass it to their attention."""

    longest: int
    seen: set[nn.Module] = field(default_factory=set)


def check_config(config: PreTrainedConfig, folder: object) -> None:
    """Raise `Refused` unless the configuration is that of a dense text model with plain weights."""
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", None)
        raise Refused(
            f"{folder}/config.json: the weights are quantised ({method or 'quantization_config'}), and training needs them in bfloat16, "
            "float16 or float32; give the checkpoint that they were made from"
        )
    if config.get_text_config(decoder=True) is not config:
        raise Refused(
            f"{folder} is a {config.model_type} model, which takes more than text; Polaris trains text models: give its text model"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise Refused(f"{folder}: transformers has no causal language model of type {config.model_type}; give one that generates text")
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if model_class._is_stateful:
        raise Refused(f"{folder}: {model_class.__name__} has a recurrent state, which the sequences of a pack would share. {_NO_SETTING}")
    if not model_class._can_set_attn_implementation():
        raise Refused(
            f"{folder}: transformers' {model_class.__name__} computes its attention itself, so that packs cannot be given to it. "
            f"{_NO_SETTING}"
        )


def check_architecture(model: PreTrainedModel, folder: object, longest: int) -> None:
    """Raise `Refused`, with the reason, if `model` (meta device) cannot be trained on sequences of at most `longest` tokens.

    Afterwards the model has an attention that computes nothing.
    """
    name = type(model).__name__
    names = checkpoint_names(model)
    other = [own for own, parameter in model.named_parameters() if own not in names or parameter.ndim > 2]
    if any("expert" in own or "moe" in own for own, _ in model.named_parameters()):
        raise Refused(f"{folder}: {name} is a mixture of experts, whose weights transformers fuses as it loads them. {_NO_SETTING}")
    if other:
        raise Refused(f"{folder}: {name} has weights that are not matrices, or not in its checkpoint, such as {other[0]}. {_NO_SETTING}")
    _check_layer_kinds(model.config, folder, longest)
    _check_attention(model, folder, longest)
    _check_buffers(model, folder)
    try:
        measure_form(model)
    except Refused as refused:
        raise Refused(f"{folder}: {refused}") from None


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder's layers, under any name of their list; empty if there is none."""
    lists = [child for child in model.get_decoder().children() if isinstance(child, nn.ModuleList)]
    return list(lists[0]) if len(lists) == 1 else []


def _check_layer_kinds(config: PreTrainedConfig, folder: object, longest: int) -> None:
    """Raise `Refused` unless all layers have full attention, or a window or chunk as long as `longest`."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    reach = {"full_attention": longest}
    reach |= {
        "sliding_attention": getattr(config, "sliding_window", None) or 0,
        "chunked_attention": getattr(config, "attention_chunk_size", 0),
    }
    unknown = sorted(kinds - reach.keys())
    if unknown:
        raise Refused(f"{folder} has layers of kind {', '.join(unknown)}; Polaris trains models whose layers all attend. {_NO_SETTING}")
    for kind in sorted(kinds):
        if reach[kind] < longest:
            raise Refused(
                f"{folder} has layers of kind {kind}, which see {reach[kind]} tokens at a time: Polaris trains such models on "
                f"sequences of that length, not on {longest}; lower data.max_prompt_tokens and the longest max_response_tokens to "
                f"{reach[kind]} together"
            )


def _check_attention(model: PreTrainedModel, folder: object, longest: int) -> None:
    """Run the decoder without numbers: every layer must pass a pack's layout to the attention that we choose, once."""
    witness, name = _Witness(longest), type(model).__name__
    layers = decoder_layers(model)
    if "position_ids" not in inspect.signature(model.get_decoder().forward).parameters:
        raise Refused(f"{folder}: transformers' {name} counts positions itself, so sequences of a pack cannot start at 0. {_NO_SETTING}")
    try:
        model.set_attn_implementation(_WITNESS)
        with torch.no_grad(), torch.device("meta"):
            model.eval().get_decoder()(
                input_ids=torch.zeros(1, 4, dtype=torch.int64),
                position_ids=torch.arange(4)[None],
                attention_mask=None,
                use_cache=False,
                layout=witness,
            )
    except Refused as refused:
        raise Refused(f"{folder}: {name}: {refused}") from None
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise Refused(
            f"{folder}: transformers' {name} does not hand the places of packed sequences on to its attention "
            f"({in_one_line(error)}). {_NO_SETTING}"
        ) from None
    if not layers or len(witness.seen) != len(layers):
        raise Refused(
            f"{folder}: {len(witness.seen)} of the {len(layers)} layers of transformers' {name} can take our attention; in the "
            f"others, sequences of a pack would see each other. {_NO_SETTING}"
        )


def _check_buffers(model: PreTrainedModel, folder: object) -> None:
    """Raise `Refused` for buffers that `make_buffers` has not filled, or that a checkpoint holds."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    lost = {name for name, buffer in model.named_buffers() if buffer.is_meta} | (set(model.state_dict()) - parameters)
    if lost:
        raise Refused(f"{folder}: {type(model).__name__} has buffers that Polaris cannot compute, such as {min(lost)}. {_NO_SETTING}")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: _Witness | None = None,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        raise ValueError(f"{type(module).__name__} leaves them out")
    check_asked(attention_mask, layout.longest, asked)
    if value.shape[-1] != query.shape[-1]:
        raise Refused("its values have another size than its keys (latent attention), which Polaris does not have; take another model")
    layout.seen.add(module)
    return query.transpose(1, 2), None


AttentionInterface.register(_WITNESS, attention)  # without a mask: transformers makes one only for attentions that register it
