"""One rank in this process, whatever engine an earlier test has left behind."""

import sys

import pytest

from polaris.distributed import mesh


def leave():
    """End the process group, and vLLM's groups before it."""
    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    mesh.stop()


@pytest.fixture(scope="module")
def world():
    leave()
    yield mesh.start()
    leave()
