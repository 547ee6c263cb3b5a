"""What vLLM loads in each of its processes where Polaris is installed (entry point `vllm.general_plugins`); it must stay light."""

from __future__ import annotations

from contextlib import suppress

from polaris.rollout.vllm_versions import SERVERS, WEIGHT_BACKEND, installed_version


def register() -> None:
    """Offer `polaris.sync.vllm_weights` to servers; it is imported where it is asked for. May be called twice."""
    if installed_version() < SERVERS:
        return
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    with suppress(ValueError):  # registered before
        WeightTransferEngineFactory.register_engine(WEIGHT_BACKEND, "polaris.sync.vllm_weights", "BridgedWeights")
