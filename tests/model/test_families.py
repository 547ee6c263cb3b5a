"""Every text family of transformers: its own log-probs, or a refusal that says why. Bias, scale, soft cap, dropout, packing, names."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.models.tiny import tiny_config, tiny_model
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.errors import Refused
from polaris.model.activations import save_activations
from polaris.model.attention import pack_layout
from polaris.model.check import check_checkpoint, check_weights
from polaris.model.head import LogitForm, measure_form
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy

LENGTHS = [5, 1, 30, 17]
MLA = {"num_key_value_heads": 4}
TRAINED = {
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25},
    "exaone4": {},
    "gemma2": {"attn_logit_softcapping": None, "final_logit_softcapping": 3.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "glm4": {},
    "gpt2": {},
    "gpt_neox": {},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "hyperclovax": {"logits_scaling": 0.5},
    "nanochat": {"final_logit_softcapping": 2.0},
    "olmo2": {},
    "olmo3": {},
    "opt": {},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "smollm3": {},
    "starcoder2": {},
    "vaultgemma": {"attn_logit_softcapping": None, "final_logit_softcapping": 3.0},
}
REFUSED = {
    "bart": "counts positions itself",
    "bloom": "computes its attention itself",
    "deepseek_v3": "mixture of experts",
    "doge": "a mask of its own",
    "falcon": "computes its attention itself",
    "gemma2": "a soft cap on its scores",
    "gpt_bigcode": "buffers",
    "gpt_neo": "computes its attention itself",
    "gpt_oss": "mixture of experts",
    "gptj": "computes its attention itself",
    "granitemoe": "mixture of experts",
    "llama4_text": "mixture of experts",
    "falcon_h1": "recurrent state",
    "mamba": "recurrent state",
    "minicpm3": "latent attention",
    "mixtral": "mixture of experts",
    "mpt": "computes its attention itself",
    "nemotron": r"does not hand the places of packed sequences on to its attention \(NemotronAttention leaves them out\)",
    "qwen2_moe": "mixture of experts",
    "qwen3_moe": "mixture of experts",
    "stablelm": r"does not hand the places of packed sequences on to its attention \(StableLmAttention leaves them out\)",
}
FORMS = {
    "head bias": ("phi", {}),
    "scale": ("granite", {"logits_scaling": 4.0}),
    "soft cap": ("gemma3_text", {"final_logit_softcapping": 2.0}),
}


@pytest.fixture(scope="module")
def world():
    mesh.stop()  # an engine of an earlier test may have left its group
    yield mesh.start()
    mesh.stop()


def changes_of(model_type):
    more = {"minicpm3": MLA, "deepseek_v3": MLA, "nemotron": {"head_dim": 32, "num_key_value_heads": 2}, "gptj": {"rotary_dim": 8}}
    return more.get(model_type, {})


def with_dropout(config):
    """Every probability of dropout that the configuration names, at a third."""
    for name in [name for name, value in config.to_dict().items() if "drop" in name and isinstance(value, float)]:
        setattr(config, name, 0.3)
    return config


def pack():
    tokens = torch.randint(2, 128, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    layout = pack_layout(LENGTHS, torch.device("cpu"))
    starts = layout.cu_seqlens.tolist()
    rows = torch.cat([torch.arange(n - 1) + start for n, start in zip(LENGTHS, starts, strict=False)])
    return tokens, torch.cat([torch.arange(n) for n in LENGTHS]), layout, rows, tokens[rows + 1]


def unpacked(model, tokens, temperature):
    """transformers' own log-probs, one sequence at a time."""
    pieces = []
    for sequence in tokens.split(LENGTHS):
        logits = model(sequence[None]).logits[0] / temperature
        pieces.append(logits.log_softmax(-1)[:-1].gather(1, sequence[1:, None])[:, 0])
    return torch.cat(pieces)


@pytest.mark.parametrize("model_type", TRAINED)
def test_a_policy_in_training_computes_the_families_own_log_probs(model_type, world, tmp_path):
    truth = tiny_model(with_dropout(tiny_config(model_type, **TRAINED[model_type])))
    truth.save_pretrained(tmp_path)
    check_checkpoint(tmp_path, longest=max(LENGTHS))
    policy = shard(Policy(build_model(tmp_path)), world.mesh, torch.float32)
    load_weights(policy.model, tmp_path, world.device)
    save_activations(policy.model, "offload", torch.device("cpu"))
    policy.train()
    tokens, positions, layout, rows, targets = pack()
    logprob, _ = policy(tokens, positions, layout, rows, targets, torch.full((len(rows),), 1.4))
    expected = unpacked(truth, tokens, 1.4)
    torch.testing.assert_close(logprob, expected, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 1, len(rows))
    (logprob * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in truth.named_parameters()}
    for name, parameter in policy.model.named_parameters():
        gap = (parameter.grad.full_tensor() - gradients[name]).norm()
        assert gap <= 2e-5 * gradients[name].norm() + 1e-6, name


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_family_that_cannot_be_trained_is_refused_with_the_reason(model_type, tmp_path):
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(tiny_config(model_type, **changes_of(model_type))).config.save_pretrained(tmp_path)
    with pytest.raises(Refused, match=REFUSED[model_type]) as refused:
        check_checkpoint(tmp_path, longest=64)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FORMS)
def test_the_objective_gets_the_head_that_the_model_has(name, tmp_path):
    """The fused loss does not see `Policy`'s own log-probs: bias, cap and scale must come with its arguments."""
    model_type, changes = FORMS[name]
    model = tiny_model(tiny_config(model_type, **changes))
    model.save_pretrained(tmp_path)
    policy = Policy(build_model(tmp_path))
    load_weights(policy.model, tmp_path, torch.device("cpu"))

    def objective(hidden, head, temperature):
        logits = torch.nn.functional.linear(hidden, head.weight, head.bias)
        logits = head.softcap * torch.tanh(logits / head.softcap) if head.softcap else logits
        return (logits / temperature[:, None]).log_softmax(-1).gather(1, targets[:, None])[:, 0]

    tokens, positions, layout, rows, targets = pack()
    with torch.no_grad():
        found = policy(tokens, positions, layout, rows, targets, torch.full((len(rows),), 0.7), objective)
        torch.testing.assert_close(found, unpacked(model, tokens, 0.7), atol=1e-5, rtol=1e-5)


def test_what_a_model_does_to_its_logits_is_measured():
    def form(model_type, **changes):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(tiny_config(model_type, **changes))
        return measure_form(model)

    assert form("qwen3") == LogitForm()
    assert form("granite", logits_scaling=3.0) == LogitForm(scale=pytest.approx(1 / 3, rel=1e-6))
    assert form("cohere", logit_scale=0.0625) == LogitForm(scale=0.0625)
    assert form("gemma2", final_logit_softcapping=30.0) == LogitForm(softcap=30.0)
    assert form("falcon_h1", lm_head_multiplier=0.5) == LogitForm(scale=0.5)
    assert form("minicpm3", dim_model_base=32, **MLA) == LogitForm(scale=0.25)


def test_logits_that_a_fused_head_cannot_give_are_refused(monkeypatch):
    from transformers import LlamaForCausalLM

    original = LlamaForCausalLM.forward

    def squared(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.logits = output.logits + 0.1 * output.logits.square()
        return output

    with torch.device("meta"):
        model = LlamaForCausalLM(tiny_config("llama"))
    monkeypatch.setattr(LlamaForCausalLM, "forward", squared)
    with pytest.raises(Refused, match="LlamaForCausalLM does more between head and logits"):
        measure_form(model)


@pytest.mark.parametrize(("longest", "fits"), [(32, True), (33, False)])
@pytest.mark.parametrize("model_type", ["mistral", "gemma3_text", "phi3"])
def test_a_sliding_window_that_no_sequence_leaves_changes_nothing(model_type, longest, fits, tmp_path):
    tiny_model(tiny_config(model_type, sliding_window=32)).save_pretrained(tmp_path)
    if fits:
        check_checkpoint(tmp_path, longest=longest)
        return
    with pytest.raises(Refused, match=r"32.*data\.max_prompt_tokens"):
        check_checkpoint(tmp_path, longest=longest)


def test_weights_saved_without_the_outer_model_are_found(tmp_path, world):
    """GPT-2 on the hub: `h.0.attn...` where transformers says `transformer.h.0.attn...`."""
    truth = tiny_model(tiny_config("gpt2"))
    truth.transformer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    check_checkpoint(tmp_path)
    model = build_model(tmp_path)
    load_weights(model, tmp_path, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), truth.parameters(), strict=True))


def test_a_model_that_cannot_be_trained_may_still_be_evaluated(tmp_path):
    tiny_model(tiny_config("qwen3_moe")).save_pretrained(tmp_path)
    check_weights(tmp_path)
    with pytest.raises(Refused, match="mixture of experts"):
        check_checkpoint(tmp_path)
