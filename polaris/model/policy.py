"""The policy: packed tokens in, log-probabilities and entropies of the response tokens out.

Legend: T packed tokens, R response tokens among them, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from polaris.distributed.fsdp import full
from polaris.model.adapters import adapted_layers, named_adapters
from polaris.model.architecture import decoder_layers
from polaris.model.attention import PackLayout
from polaris.model.head import measure_form
from polaris.model.names import base_parameters
from polaris_kernels import Head, linear_logprob


class Policy(nn.Module):
    """A causal language model whose head is fused with the log-softmax, so that no [T, V] tensor exists.

    Bias, scale and soft cap of the model's own logits are included. There is no dropout, since engines sample without it.

    FSDP2 wraps it as the root, so embedding, final norm and head are gathered for the whole forward.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._form = measure_form(model)
        self.attention = ""
        """What computes it, for the console; see `polaris.model.flash`."""

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers; FSDP2 gathers each on its own."""
        return decoder_layers(self.model)

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        layout: PackLayout,
        rows: Tensor,
        targets: Tensor,
        temperature: Tensor,
        objective: Callable[[Tensor, Head, Tensor], Any] | None = None,
    ) -> Any:
        """Log-probs [R] and entropies [R] (no gradient), float32, of softmax(logits / temperature); or the objective's results.

        Args:
            tokens, position_ids: [T] int64, positions restarting at 0 in each sequence.
            rows: [R] index of the position that predicts each response token.
            targets, temperature: [R] the response tokens and the temperature that sampled them.
            objective: called here with (hidden [R, H], head, temperature [R] with the scale in it), while the head is gathered.
        """
        output = self.model.get_decoder()(
            input_ids=tokens[None], position_ids=position_ids[None], attention_mask=None, use_cache=False, layout=layout
        )
        hidden = output.last_hidden_state[0].index_select(0, rows)
        output_layer: Any = self.model.get_output_embeddings()
        weight, bias, softcap = output_layer.weight, output_layer.bias, self._form.kernel_softcap
        temperature = self._form.temperature(temperature)
        if objective is not None:
            return objective(hidden, Head(weight=weight, bias=bias, softcap=softcap or 0.0), temperature)
        logprob, entropy = linear_logprob(hidden, weight, targets, temperature=temperature, bias=bias, softcap=softcap)
        assert entropy is not None
        return logprob, entropy.detach()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Hugging Face name and full tensor of every parameter, with adapters merged; a collective on every rank, one tensor at a time."""
        adapters = adapted_layers(self.model)
        for name, parameter in base_parameters(self.model).items():
            weight, adapter = full(parameter.detach()), adapters.get(name.removesuffix(".weight"))
            yield name, weight if adapter is None else adapter.merged(weight)

    def named_adapters(self) -> Iterator[tuple[str, Tensor]]:
        """Names as in a peft folder and full tensors of the adapters, float32; a collective as `named_weights`."""
        return named_adapters(self.model)
