"""The part of a vLLM server that takes our weights: `--weight-transfer-config '{"backend": "polaris"}'`, in each of its workers.

The server's endpoints for weights call it (`polaris.rollout.server_engine` calls them). Unlike vLLM's own backends it takes a whole model
in one `update_weights`, checks that it is whole, and can be asked again after it has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload.inplace import reload_weights
from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload

from polaris.model.rope import Rope
from polaris.model.rope_check import check_rope
from polaris.rollout.checkpoint import expected_weights
from polaris.rollout.types import BRIDGE_BROKE, BridgePlace, ModelFacts
from polaris.rollout.vllm_model import Weights, repack_tied_head, replace_weights, rotary_table_of
from polaris.sync.bridge import Bridge, BridgeBroken


@dataclass(kw_only=True)
class Beginning(WeightTransferInitInfo):
    """A job begins to use the server, with fields of its `ModelFacts`, or a bridge, with those of `BridgePlace`."""

    model: dict[str, Any] | None = None
    place: dict[str, Any] | None = None


@dataclass(kw_only=True)
class Source(WeightTransferUpdateInfo):
    """Where new weights come from: the bridge, or else the server's own checkpoint."""

    bridge: bool


class BridgedWeights(WeightTransferEngine[Beginning, Source]):
    """One worker's place on the bridge between trainers and engines."""

    init_info_cls, update_info_cls = Beginning, Source
    supports_draft_weight_update = False

    _bridge: Bridge | None = None

    def init_transfer_engine(self, init_info: Beginning) -> None:
        """Check that the model is the job's, or join a bridge and leave the one before; returns when all of its ranks are there."""
        if init_info.model is not None:
            self._check(ModelFacts(**init_info.model))
        if init_info.place is not None:
            self._bridge = None
            self._bridge = self._join(BridgePlace(**init_info.place))

    def start_weight_update(self) -> None:
        """Nothing: `receive_weights` does all, so that what fails has one place."""

    def receive_weights(self, update_info: Source) -> None:
        """Replace all weights of this worker.

        Raises:
            RuntimeError: the bridge broke, or the weights are not those of the model. It then has a part of them; the next call replaces
                them all.
        """
        try:
            if update_info.bridge:
                self._from_bridge()
            else:
                self._reload(None)
                repack_tied_head(self.model)
        except BaseException:
            self._bridge = None
            finalize_layerwise_reload(self.model, self.model_config)  # else vLLM would take the rest of these for the next ones
            raise

    def finish_weight_update(self) -> None:
        """Nothing, as `start_weight_update`."""

    def shutdown(self) -> None:
        """Leave the bridge."""
        self._bridge = None

    def _check(self, facts: ModelFacts) -> None:
        """Raise RuntimeError where the model computes something else than the trainer's."""
        shapes, _ = expected_weights(self.model_config.model)
        theirs, ours = facts.shapes, {name: list(shape) for name, shape in shapes.items()}
        for name in [*theirs, *ours]:
            if theirs.get(name) != ours.get(name):
                one, other = ours.get(name), theirs.get(name)
                raise RuntimeError(f"it is another model, whose {name} is {one}, the run's {other}")
        dtype: Any = self.model_config.dtype  # not a name any more
        check_rope("server", Rope(**facts.rope), partial(rotary_table_of, self.model, dtype=dtype))
        if self.device.type == "cuda" and self.model_config.head_dtype != torch.float32:
            raise RuntimeError(f"its logits are {self.model_config.head_dtype}, the trainer's float32")

    def _join(self, place: BridgePlace) -> Bridge:
        timeout, rank = timedelta(seconds=place.timeout_s), place.rank + self.parallel_config.rank
        with _broken():
            store = dist.TCPStore(place.host, place.port, is_master=False, timeout=timeout)
            return Bridge(dist.PrefixStore(place.prefix, store), rank, place.size, self.device, timeout)

    def _from_bridge(self) -> None:
        bridge = self._bridge
        if bridge is None:
            raise RuntimeError("weights were announced, but this worker is on no bridge")

        def received() -> Weights:
            with _broken():
                yield from bridge.receive()

        replace_weights(self.model, self._reload, received(), *expected_weights(self.model_config.model))

    def _reload(self, named: Weights | None) -> None:
        reload_weights(self.vllm_config, self.model, weights_iterator=named, weights_path=None, is_checkpoint_format=True)


@contextmanager
def _broken() -> Iterator[None]:
    """Say in words that the bridge broke: all that reaches the job of an error is its text."""
    try:
        yield
    except (BridgeBroken, dist.DistError) as error:
        raise RuntimeError(f"{BRIDGE_BROKE}: {error}") from error
