from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from polaris.config.model import ModelConfig
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.model.activations import Activations, save_activations
from polaris.model.attention import pack_layout, packed_attention
from polaris.model.load import build_model, count_parameters, load_tokenizer, load_weights, locate_model
from polaris.model.policy import Policy

LENGTHS = [5, 1, 30, 17, 6, 29]
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def qwen3(tied):
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=tied))


def qwen2_yarn(tied):
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=rope, tie_word_embeddings=tied))


@pytest.fixture(
    params=[(qwen3, True), (qwen3, False), (qwen2_yarn, True)], ids=["qwen3-tied", "qwen3-untied", "qwen2-yarn"], scope="module"
)
def folder(request, tmp_path_factory):
    build, tied = request.param
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = build(tied)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path, max_shard_size="100KB")
    return path


@pytest.fixture(scope="module")
def world():
    mesh.stop()  # an engine of an earlier test may have left its group
    world = mesh.start()
    yield world
    mesh.stop()


@pytest.fixture
def policy(folder, world):
    policy = shard(Policy(build_model(folder)), world.mesh, torch.float32)
    load_weights(policy.model, folder, world.device)
    return policy


def pack(seed=0):
    tokens = torch.randint(0, 97, (sum(LENGTHS),), generator=torch.Generator().manual_seed(seed))
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    layout = pack_layout(LENGTHS, torch.device("cpu"))
    starts = layout.cu_seqlens.tolist()
    rows = torch.cat([torch.arange(n - 1) + start for n, start in zip(LENGTHS, starts, strict=False)])
    return tokens, positions, layout, rows, tokens[rows + 1]


def unpacked(reference, tokens, temperature):
    """transformers' own log-probs, one sequence at a time."""
    logprobs, start = [], 0
    for length in LENGTHS:
        sequence = tokens[start : start + length]
        logits = reference(sequence[None]).logits[0] / temperature
        logprobs.append(torch.log_softmax(logits, -1)[:-1].gather(1, sequence[1:, None])[:, 0])
        start += length
    return torch.cat(logprobs)


@pytest.mark.parametrize("activations", get_args(Activations))
def test_packed_equals_unpacked_transformers(folder, policy, activations):
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    save_activations(policy.model, activations, torch.device("cpu"))
    policy.train()
    tokens, positions, layout, rows, targets = pack()
    logprob, entropy = policy(tokens, positions, layout, rows, targets, torch.full((len(rows),), 1.4))
    expected = unpacked(reference, tokens, 1.4)
    torch.testing.assert_close(logprob, expected, atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    weights = torch.linspace(-1, 1, len(rows))
    (logprob * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = dict(reference.named_parameters())
    for name, parameter in policy.model.named_parameters():
        truth = gradients[name].grad
        assert (parameter.grad.full_tensor() - truth).norm() <= 1e-5 * truth.norm() + 1e-7, name


def test_load_is_exact_and_complete(folder, policy):
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = dict(policy.named_weights())
    assert weights.keys() == dict(reference.named_parameters()).keys()
    for name, parameter in reference.named_parameters():
        assert torch.equal(weights[name], parameter)
    for name, buffer in reference.named_buffers():
        assert torch.equal(dict(policy.model.named_buffers())[name], buffer), name
    assert count_parameters(policy) == reference.num_parameters()


def test_sliding_window_is_refused():
    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="sliding window"):
        packed_attention(torch.nn.Module(), q, q, q, None, layout=pack_layout([4], q.device), sliding_window=2)


def test_padding_of_groups_is_bounded_and_all_rows_covered():
    lengths = [1, 100, 99, 3, 50, 51, 52, 1, 1, 2]
    layout = pack_layout(lengths, torch.device("cpu"))
    rows = torch.cat([rows for _, rows, _, _ in layout.groups])
    assert sorted(rows.tolist()) == list(range(sum(lengths)))
    for slots, _, count, length in layout.groups:
        assert len(slots) >= 0.75 * count * length


def test_locate_model_names_the_remedy(tmp_path):
    for path in (str(tmp_path / "absent"), "./absent", "absent"):
        with pytest.raises(ValueError, match="does not exist"):
            locate_model(ModelConfig(path=path))
    with pytest.raises(ValueError, match=r"no config.json"):
        locate_model(ModelConfig(path=str(tmp_path)))


def test_tokenizer_comes_from_the_folder(tmp_path):
    with pytest.raises((OSError, ValueError)):
        load_tokenizer(tmp_path)


@pytest.mark.gpu
def test_fused_modules_equal_the_models_own_and_are_reversible():
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    from polaris.model.fused import fuse_modules

    torch.manual_seed(0)
    model = qwen3(True).cuda()
    tokens, positions, *_ = (x.cuda()[None] if isinstance(x, torch.Tensor) else x for x in pack())
    plain = model(tokens, position_ids=positions, use_cache=False).logits
    restore = fuse_modules(model)
    fused = model(tokens, position_ids=positions, use_cache=False).logits
    restore()
    torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-4)
    assert torch.equal(model(tokens, position_ids=positions, use_cache=False).logits, plain)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_packed_attention_on_cuda_is_the_cpus(dtype, tolerance):
    lengths, generator = [7, 1, 130, 64], torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(lengths), 64, generator=generator) for heads in (4, 2, 2))
    expected, _ = packed_attention(torch.nn.Identity(), query, key, value, None, layout=pack_layout(lengths, torch.device("cpu")))
    layout, moved = pack_layout(lengths, torch.device("cuda")), [x.to("cuda", dtype) for x in (query, key, value)]
    found, _ = packed_attention(torch.nn.Identity(), *moved, None, layout=layout)
    torch.testing.assert_close(found.float().cpu(), expected, atol=tolerance, rtol=tolerance)
