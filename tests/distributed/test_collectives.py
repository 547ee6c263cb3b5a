"""What eight ranks say to each other, counted on torch's fake process group; a collective too many per pack or tensor costs every step."""

import json
import sys
from pathlib import Path

import programs
import pytest
from transformers import Qwen3Config

sys.path.insert(0, str(Path(__file__).parent))
import count_collectives

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def counted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    Qwen3Config(vocab_size=515, num_hidden_layers=3, tie_word_embeddings=request.param, **SHAPE).save_pretrained(folder)
    return json.loads(programs.run(count_collectives.__file__, folder, check=True).stdout.splitlines()[-1])


@pytest.mark.distributed
def test_collectives_of_an_update(counted):
    packs, layers = counted["packs"], counted["layers"]
    assert packs > 1
    print(counted)
    # Per pack: every layer is gathered in the forward and again in the backward, the root once; each gives back its gradient.
    assert counted["update"]["allgather_base"] == packs * (2 * layers + 1)
    assert counted["update"]["reduce_scatter_base"] == packs * (layers + 1)
    # The loss. The reduction of the gradient norm is inside of DTensor, where it is not seen.
    assert counted["update"]["allreduce"] == 1
    assert sum(counted["update"].values()) == packs * (3 * layers + 2) + 1


@pytest.mark.distributed
def test_copies_add_up_once_in_an_update(counted):
    packs, layers = counted["packs"], counted["layers"]
    assert counted["copied"]["reduce_scatter_base"] == packs * (layers + 1)
    # Of each layer and of the root, after the last pack; and the loss over both dimensions of the mesh.
    assert counted["copied"]["allreduce"] == layers + 1 + 2


@pytest.mark.distributed
def test_what_stays_gathered_is_gathered_once(counted):
    assert counted["kept"]["allgather_base"] == counted["layers"] + 1


@pytest.mark.distributed
def test_one_gather_for_each_published_tensor(counted):
    assert sum(count for name, count in counted["publish"].items() if "gather" in name) == counted["published"]


@pytest.mark.distributed
def test_a_forward_alone_leaves_the_root_gathered_and_reshard_gives_it_back(counted):
    assert any("embed_tokens" in name for name in counted["gathered"])
    assert not any(".layers." in name for name in counted["gathered"])
