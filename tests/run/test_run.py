"""The real program on the embedded model: learns, is killed, is stopped, and goes on as if nothing had happened."""

import json
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from samples import training_sample
from transformers import AutoModelForCausalLM, AutoTokenizer

from polaris.checkpoint import layout
from polaris.checkpoint.store import load
from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.training import OptimizerConfig
from polaris.data.prompts import load_prompts
from polaris.distributed import mesh
from polaris.distributed.fsdp import shard
from polaris.embedded import resolve
from polaris.learn.optimizer import build_optimizer
from polaris.learn.packing import build_pack
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy
from polaris.observe.metrics import deterministic, read_records
from polaris.rollout.engine import create_engine
from polaris.rollout.types import RolloutRequest, Sampling

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.toml"
# The first run on a new machine builds the embedded model.
pytestmark = pytest.mark.timeout(600)
SMALL = [
    "--trainer.cpu_threads=1",
    "--trainer.steps=5",
    "--trainer.prompts_per_step=8",
    "--checkpoint.every=2",
    "--eval.every=3",
    "--eval.samples_per_prompt=1",
]


def start(root, name):
    return programs.Program("-m", "polaris.train", CONFIG, f"--root={root}", f"--name={name}", *SMALL)


def finish(process):
    _, errors = process.communicate(timeout=550)
    assert process.returncode == 0, errors[-2000:]


def wait_for_step(folder, step, process):
    deadline = time.monotonic() + 240
    while not any(record["step"] >= step and "reward/mean" in record for record in read_records(folder / "metrics.jsonl")):
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing interrupted."""
    root = tmp_path_factory.mktemp("runs")
    finish(start(root, "straight"))
    return root / "straight"


def repeated(folder):
    return [deterministic(record) for record in read_records(folder / "metrics.jsonl")]


@pytest.mark.vllm
@pytest.mark.slow
def test_a_run_leaves_what_it_promises(straight):
    records = read_records(straight / "metrics.jsonl")
    assert [record["step"] for record in records if "reward/mean" in record] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in records if "eval/accuracy" in record] == [0, 3, 5]
    for record in records:
        if "reward/mean" in record:
            assert record["sync/logprob_gap"] < 1e-4
            assert record["mismatch/logprob_gap_max"] < 1e-4
            assert record["seconds/step"] > 0
    assert (straight / "report.html").stat().st_size > 1000
    assert (straight / "report.png").stat().st_size > 1000
    assert len(list((straight / "rollouts").glob("*.jsonl"))) == 5
    assert json.loads((straight / "config.json").read_text())["trainer"]["steps"] == 5


@pytest.mark.vllm
@pytest.mark.slow
def test_stopped_killed_and_resumed_it_equals_the_one_never_interrupted(straight):
    folder = straight.parent / "interrupted"
    for number, step in ((signal.SIGTERM, 1), (signal.SIGKILL, 3)):
        process = start(straight.parent, folder.name)
        wait_for_step(folder, step, process)
        stopped = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}[number]
        assert time.monotonic() - stopped < 30
        assert repeated(folder) != repeated(straight)
    finish(start(straight.parent, folder.name))
    assert repeated(folder) == repeated(straight)


@pytest.fixture(scope="module")
def exported(straight):
    """By the command; the run itself has exported its last step."""
    assert (straight / "export" / "step-000005" / "model.safetensors").is_file()
    command = ["-m", "polaris.cli", "export", f"{straight}@step-5", f"--output={straight / 'exported'}"]
    output = programs.run(*command, check=True).stdout.strip().splitlines()[-1]
    again = programs.run(*command)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    return Path(output)


@pytest.fixture(scope="module")
def prompts(exported):
    """Twelve held-out problems as the trainer tokenizes them."""
    options = {"max_prompt_tokens": 64, "prompt_suffix": "", "chat_template_options": {}}
    loaded = load_prompts(resolve("embedded:test"), split="test", tokenizer=AutoTokenizer.from_pretrained(exported), **options)
    return [prompt.tokens for prompt in loaded.prompts[:12]]


@pytest.fixture(scope="module")
def greedy(exported, prompts):
    """Greedy responses of the exported model, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(exported)
    outputs = [model.generate(torch.tensor([tokens]), do_sample=False, max_new_tokens=100)[0].tolist() for tokens in prompts]
    return [output[len(tokens) :] for output, tokens in zip(outputs, prompts, strict=True)]


@pytest.mark.slow
def test_export_is_a_plain_checkpoint_of_trained_weights(exported, greedy):
    texts = AutoTokenizer.from_pretrained(exported).batch_decode(greedy)
    assert all("</think>" in text for text in texts)
    base = AutoModelForCausalLM.from_pretrained(resolve("embedded:model")).state_dict()
    trained = AutoModelForCausalLM.from_pretrained(exported).state_dict()
    assert max(float((trained[name] - base[name]).abs().max()) for name in base) > 1e-4


@pytest.mark.vllm
@pytest.mark.slow
def test_exported_greedy_text_is_vllms(exported, prompts, greedy):
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=64)
    engine = create_engine(rollout, exported, ModelConfig(dtype="float32"), max_model_len=256, seed=0)
    requests = [RolloutRequest(prompt_id=str(index), sample=0, prompt_tokens=tokens, seed=0) for index, tokens in enumerate(prompts)]
    sampling = Sampling(temperature=0.0, max_tokens=100)
    rollouts = engine.generate(requests, sampling, on_progress=lambda progress: None, should_stop=lambda: False)
    engine.close()
    assert [rollout.tokens.tolist() for rollout in rollouts] == greedy


def most_probable(checkpoint, prompts, responses):
    """For every response token, the most probable one of the whole vocabulary under the trainer's packed forward."""
    world = mesh.start()
    base = Path(resolve("embedded:model"))
    policy = shard(Policy(build_model(base)), world.mesh, torch.float32)
    load_weights(policy.model, base, world.device)
    load(checkpoint, policy, build_optimizer(policy, OptimizerConfig()), world)
    vocabulary = policy.model.config.vocab_size
    samples = [
        training_sample(
            prompt_tokens=prompt, tokens=np.array(response), logprobs=np.zeros(len(response), "f4"), advantage=0.0, temperature=1.0
        )
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    pack = build_pack(samples, world.device)
    every = torch.arange(vocabulary).repeat(len(pack.rows))
    with torch.no_grad():
        rows = pack.rows.repeat_interleave(vocabulary)
        logprob, _ = policy(pack.tokens, pack.position_ids, pack.layout, rows, every, torch.ones(len(rows)))
    mesh.stop()
    return logprob.view(-1, vocabulary).argmax(-1).tolist()


@pytest.mark.slow
def test_exported_greedy_text_is_the_trainers(straight, prompts, greedy):
    checkpoint = layout.step_folder(straight / "checkpoints", 5)
    # A process of its own: engines of other tests hold this one's process group.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        best = pool.submit(most_probable, checkpoint, prompts, greedy).result()
    assert best == [token for response in greedy for token in response]
