"""The formula of a layer's activations beside the storages of the layer itself."""

import pytest
import torch

from benchmarks.plan.one_layer import planned, trace
from benchmarks.plan.shapes import CONFIGS, shape
from polaris.plan.activations import layer


@pytest.mark.parametrize(("fused", "dtype"), [(True, torch.bfloat16), (False, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("name", ["Qwen3-0.6B", "Qwen3-32B", "Qwen2.5-Math-7B"])
def test_a_layer_takes_what_is_planned(name, fused, dtype):
    found, expected = trace(name, fused, dtype=dtype), planned(name, fused, dtype=dtype)
    print(f"{name}: {found} traced, {expected} planned")
    assert expected.kept == pytest.approx(found.kept, rel=0.01)
    assert found.backward * 0.99 < expected.backward < found.backward * 1.05


def test_shapes_are_those_of_the_checkpoints():
    """Parameters as the model cards have them, in billions."""
    published = {"Qwen3-0.6B": 0.596, "Qwen3-1.7B": 1.72, "Qwen3-4B": 4.02, "Qwen3-8B": 8.19, "Qwen3-14B": 14.8, "Qwen3-32B": 32.8}
    found = {name: shape(name).parameters / 1e9 for name in published}
    assert found == pytest.approx(published, rel=0.003)
    assert CONFIGS.keys() - published.keys() == {"Qwen2.5-Math-7B"}
    assert shape("Qwen2.5-Math-7B").parameters / 1e9 == pytest.approx(7.62, rel=0.003)
    assert not shape("Qwen2.5-Math-7B").query_norm


def test_ranks_that_share_a_pack_keep_the_output_twice_and_repeated_keys():
    """8 key heads of 128 over 16 ranks are repeated twice: one more width of queries, and keys and values once more."""
    sizes = shape("Qwen3-4B")
    alone, eight, sixteen = (layer(sizes, True, sequence_parallel=ranks).attention for ranks in (1, 8, 16))
    assert eight - alone == 32 * 128
    assert sixteen - eight == 2 * 8 * 128
