"""One rank in this process, whatever engine an earlier test has left behind."""

import sys

import pytest

from polaris.distributed import mesh


@pytest.fixture(scope="module")
def world():
    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        destroy_distributed_environment()
    mesh.stop()
    yield mesh.start()
    mesh.stop()
