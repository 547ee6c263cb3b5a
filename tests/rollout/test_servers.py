"""vLLM's own server outside the job: it draws what our engine draws, takes weights in the middle, and is not believed when it fails."""

import http.client
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from programs import start_ranks
from transformers import AutoModelForCausalLM
from vllm_server import KEY, MAX_LEN, MOST

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.embedded import resolve
from polaris.errors import Refused, RunFailed
from polaris.model.rope import OWN, resolve_rope
from polaris.rollout import server_client
from polaris.rollout.engine import create_engine, is_in_flight
from polaris.rollout.server_client import ServerLost
from polaris.rollout.server_engine import ServerEngine
from polaris.rollout.types import BridgePlace, GenerationInterrupted, RolloutRequest, Sampling, TransferBroken
from polaris.rollout.vllm_versions import SERVERS, installed_version
from polaris.sync.bridge import Bridge

pytestmark = [
    pytest.mark.timeout(600),  # the first run on a new machine builds the embedded model
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(installed_version() < SERVERS, reason="vLLM is not installed, or has other endpoints for weights"),
]
LONG = Sampling(temperature=2.0, max_tokens=300)
HERE = Path(__file__).parents[1] / "run" / "train_here.py"


@pytest.fixture(scope="module")
def folder():
    return resolve("embedded:model")


@pytest.fixture(scope="module")
def models(folder):
    """A: the server's checkpoint. B: the same with noise, which can be told from it."""
    found = {name: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for name in "AB"}
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in found["B"].parameters():
            if parameter.ndim == 2:
                parameter += 0.05 * torch.randn_like(parameter)
    return found


@pytest.fixture(scope="module")
def weights(models):
    return {name: [(key, value.detach()) for key, value in model.named_parameters()] for name, model in models.items()}


@pytest.fixture(scope="module")
def ours(folder, vllm_server):
    """Our own engine, in this process; made while the server starts."""
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=32, max_concurrent=64)
    engine = create_engine(rollout, folder, ModelConfig(dtype="float32"), max_model_len=MAX_LEN, seed=0)
    yield engine
    engine.close()


@torch.no_grad()
def logprobs(model, tokens, temperature):
    """Log-probs [n - 1] of tokens[1:], by transformers alone."""
    logits = model(torch.tensor([tokens])).logits[0, :-1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[1:, None])[:, 0].numpy()


def prompt(length, start=0):
    return tuple((start + 7 * number) % 300 + 4 for number in range(length))


def requests_for(*prompts, samples=1, seed=0):
    return [
        RolloutRequest(prompt_id=str(number), sample=sample, prompt_tokens=tokens, seed=seed + 1000 * number + sample)
        for number, tokens in enumerate(prompts)
        for sample in range(samples)
    ]


def generate(engine, requests, should_stop=lambda: False, **settings):
    sampling = Sampling(**{"temperature": 1.0, "max_tokens": 32} | settings)
    return engine.generate(requests, sampling, on_progress=lambda progress: None, should_stop=should_stop)


@pytest.fixture
def connect(vllm_server, folder, monkeypatch):
    """Engines on the server, closed with the test."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    engines = []

    def make(port=vllm_server[1], path=folder, dtype="float32", max_model_len=MAX_LEN, rope=OWN, start_s=300.0, silence_s=30.0):
        engine = ServerEngine(
            f"http://127.0.0.1:{port}/",
            path,
            model=ModelConfig(dtype=dtype),
            rollout=RolloutConfig(),
            max_model_len=max_model_len,
            rope=resolve_rope(path, rope),
            start_s=start_s,
            silence_s=silence_s,
        )
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
        engine.close()


class Trainer:
    """The other end of bridges: sends in a thread of its own."""

    def __init__(self):
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.number, self.bridge = 0, None

    def place(self, timeout_s=30.0):
        """A new bridge of the trainer and the server's one worker."""
        self.number, self.bridge = self.number + 1, None
        return BridgePlace(host="127.0.0.1", port=self.store.port, prefix=f"bridge/{self.number}", rank=1, size=2, timeout_s=timeout_s)

    @contextmanager
    def sending(self, place, weights):
        def send():
            if self.bridge is None:
                store = dist.PrefixStore(place.prefix, self.store)
                self.bridge = Bridge(store, 0, 2, torch.device("cpu"), timedelta(seconds=place.timeout_s))
            try:
                self.bridge.send(weights)
            except RuntimeError:  # the weights end, or the other one has refused them
                self.bridge = None

        thread = threading.Thread(target=send)
        thread.start()
        yield
        thread.join()


@pytest.fixture(scope="module")
def trainer():
    return Trainer()


def drain(engine, until=lambda rollouts: False):
    rollouts = []
    while engine.running and not until(rollouts):
        rollouts += engine.step()
    return rollouts


def same(mine, theirs):
    assert [one.tokens.tolist() for one in mine] == [one.tokens.tolist() for one in theirs]
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert (one.finish_reason, one.seed, one.temperature) == (other.finish_reason, other.seed, other.temperature)


def test_it_draws_what_our_engine_draws(ours, connect, weights):
    engine = connect()
    ours.load_weights(weights["A"], 0)
    requests = requests_for(prompt(5), prompt(70, 3), prompt(MAX_LEN - 8, 1), samples=8, seed=1 << 61)
    for settings in ({}, {"temperature": 2.0, "max_tokens": 200}, {"top_k": 5}, {"top_p": 0.8}):
        mine, theirs = (generate(one, requests, **settings) for one in (engine, ours))
        same(mine, theirs)
        assert {one.version for one in mine} == {0}
        if settings.get("max_tokens"):
            assert {one.finish_reason for one in mine} == {"stop", "length"}
    with pytest.raises(ValueError, match="outside the model's vocabulary of 320"):
        engine.submit(requests_for((2, 320)), LONG)
    assert engine.workers == 1
    assert not engine.running
    assert is_in_flight(engine)


def test_weights_come_in_the_middle_of_responses(connect, ours, models, weights, trainer):
    engine, place = connect(), trainer.place()
    requests = requests_for(*(prompt(4 + 9 * number, number) for number in range(4)), samples=20)
    rollouts, served = [], {0: "A"}
    engine.submit(requests, LONG)
    for version, name in ((1, "B"), (4, "A")):
        rollouts += drain(engine, lambda ended: len(ended) >= 3)
        with trainer.sending(place, weights[name]):
            engine.take_weights(place, version)
        assert engine.version == version
        served[version] = name
    first = requests_for(prompt(9), samples=2, seed=77)
    left = engine.running
    engine.submit_first(first, Sampling(temperature=2.0, max_tokens=8))
    assert engine.waiting >= left - MOST
    rollouts += (rest := drain(engine))
    ended = [one.seed for one in rest]
    assert max(ended.index(request.seed) for request in first) < len(rest) / 2, "the first ones came first"
    assert len(rollouts) == len(requests) + len(first)
    prompts = {request.seed: request.prompt_tokens for request in (*requests, *first)}
    mixed, off = 0, 0.0
    for rollout in rollouts:
        found = sorted(set(rollout.versions.tolist()))
        assert rollout.versions.tolist() == sorted(rollout.versions)
        whole, begin = [*prompts[rollout.seed], *rollout.tokens.tolist()], len(prompts[rollout.seed]) - 1
        truth = {name: logprobs(model, whole, 2.0)[begin:] for name, model in models.items()}
        for version in found:
            mine = rollout.versions == version
            np.testing.assert_allclose(rollout.logprobs[mine], truth[served[version]][mine], atol=2e-5)
        mixed += len(found) > 1
        off = max(off, float(np.abs(truth["A"] - truth["B"]).max()))
    assert mixed > 0
    assert off > 1, "the weights can be told apart"
    again = requests_for(prompt(70), samples=4)
    with trainer.sending(place, weights["B"]):
        engine.take_weights(place, 5)
    ours.load_weights(weights["B"], 5)
    same(generate(engine, again), generate(ours, again))


def test_after_a_broken_transfer_it_draws_nothing_until_it_has_whole_weights(connect, ours, weights, trainer):
    engine, requests = connect(), requests_for(prompt(70), samples=4)
    name, last = weights["B"][-1]
    wrong = [*weights["B"][:-1], (name, last[:-1])]
    for broken, said in ((weights["B"][:-1], "1 of [0-9]+ weights were not published"), (wrong, "has shape")):
        place = trainer.place()
        with pytest.raises(ServerLost, match=rf"update_weights failed: status 500.*{said}"), trainer.sending(place, broken):
            engine.take_weights(place, 1)
    engine.submit(requests, LONG)
    until = time.monotonic() + 0.5
    assert drain(engine, lambda ended: time.monotonic() > until) == []
    place = trainer.place()
    with trainer.sending(place, weights["B"]):
        engine.take_weights(place, 1)
    ours.load_weights(weights["B"], 1)
    found = {one.sample: one for one in drain(engine)}
    same([found[request.sample] for request in requests], generate(ours, requests, temperature=2.0, max_tokens=300))


def test_another_driver_begins_with_the_checkpoint(connect, ours, weights, trainer):
    """Whatever the one before has left: here a bridge that broke, and an update that it did not end."""
    before, place = connect(), trainer.place()

    def dying():
        yield from weights["B"][:5]
        raise RuntimeError

    with trainer.sending(place, dying()), pytest.raises(TransferBroken, match=r"update_weights failed: status 500.*the bridge broke"):
        before.take_weights(place, 1)
    before._order("/start_weight_update")
    engine, requests = connect(), requests_for(prompt(70), samples=4)
    assert engine.version == 0
    ours.load_weights(weights["A"], 0)
    same(generate(engine, requests), generate(ours, requests))
    with pytest.raises(ServerLost, match="which this job did not give it"):
        generate(before, requests)


def test_it_can_be_cut_off(connect):
    engine, requests = connect(), requests_for(prompt(4), prompt(13, 1), samples=8)
    whole = {(one.prompt_id, one.sample): one for one in generate(engine, requests, temperature=2.0, max_tokens=300)}
    calls = iter(range(3))
    with pytest.raises(GenerationInterrupted):
        generate(engine, requests, temperature=2.0, max_tokens=300, should_stop=lambda: next(calls) == 2)
    for pause in (0.2, 0.5, 1.0, 2.0):  # on a busy machine nothing has come after the first
        engine.submit(requests, LONG)
        time.sleep(pause)
        if cut := engine.abort():
            break
    assert not engine.running
    assert 0 < len(cut) <= MOST
    assert "abort" in {one.finish_reason for one in cut}
    for one in cut:
        tokens = whole[one.prompt_id, one.sample].tokens.tolist()
        assert one.tokens.tolist() == tokens[: len(one.tokens)]


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server, but for those that `rule(method, path)` answers; `change(path, body)` alters replies. It hangs up
    on a second request of a connection, as a server does whose patience with an idle one has just ended."""

    protocol_version = "HTTP/1.1"
    answered = False

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = (None, b"") if self.answered else self.server.rule(self.command, self.path)
        self.answered = True
        if answer is None:
            with closing(http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                answer = reply.status, self.server.change(self.path, reply.read())
        status, data = answer
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def proxy(vllm_server):
    front = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    front.daemon_threads = True
    front.behind, front.rule, front.change = vllm_server[1], lambda method, path: None, lambda path, body: body
    front.port = front.server_address[1]
    threading.Thread(target=front.serve_forever, daemon=True).start()
    yield front
    front.shutdown()
    front.server_close()


def test_failures_that_pass_are_passed_over(connect, proxy, monkeypatch):
    monkeypatch.setattr(server_client, "_LONGEST_PAUSE_S", 0.05)
    engine, requests = connect(proxy.port), requests_for(prompt(5), samples=6)
    theirs = generate(engine, requests)
    failures = [(503, b"later"), (None, b""), (500, b"oh"), (429, b"")]
    proxy.rule = lambda method, path: failures.pop() if failures and path.endswith("generate") else None
    same(generate(engine, requests), theirs)
    assert not failures
    proxy.rule = lambda method, path: (500, b"always") if path.endswith("generate") else None
    with pytest.raises(ServerLost, match="failed to draw a response to 0 5 times: status 500, always"):
        generate(engine, requests)


def test_a_refused_request_is_named(connect, proxy):
    engine = connect(proxy.port)
    proxy.rule = lambda method, path: (400, b"no such thing") if path.endswith("generate") else None
    with pytest.raises(RunFailed, match="refuses to draw a response to 0: status 400, no such thing"):
        generate(engine, requests_for(prompt(5)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "bfloat16"}, r"has --dtype float32, not bfloat16"),
        ({"max_model_len": MAX_LEN + 1}, rf"has --max-model-len {MAX_LEN}, and the run's sequences have up to {MAX_LEN + 1} tokens"),
        ({"layers": 4}, r"it is another model, whose model\.layers\.3\.\S+ is None, the run's \["),
        ({"rope": RopeConfig(factor=2.0)}, r"the server's rotary table has shape"),
    ],
)
def test_another_server_than_the_run_needs_is_refused(settings, said, connect, folder, tmp_path):
    settings = dict(settings)
    if layers := settings.pop("layers", None):
        config = json.loads((Path(folder) / "config.json").read_text()) | {"num_hidden_layers": layers, "layer_types": None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        settings["path"] = tmp_path
    with pytest.raises(Refused, match=rf"{said}.*this starts one that fits: VLLM_SERVER_DEV_MODE=1 python -m vllm") as refusal:
        connect(**settings)
    assert ("""--hf-overrides '{"rope_parameters": {"rope_type": "yarn\"""" in str(refusal.value)) == ("rope" in settings)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/get_world_size", 404, "VLLM_SERVER_DEV_MODE is not set"),
        ("/inference/v1/abort_requests", 403, "--enable-scale-out is not set"),
        ("/version", 404, "is no vLLM server"),
    ],
)
def test_a_server_without_a_door_is_refused(path, status, said, connect, proxy):
    """The proxy answers as vLLM does where the endpoint is off."""
    proxy.rule = lambda method, asked: (status, b'{"detail": "Not Found"}') if asked == path else None
    with pytest.raises(Refused, match=said):
        connect(proxy.port)


def test_other_settings_of_a_server_are_refused(connect, proxy, monkeypatch):
    def change(path, body):
        if path == "/version":
            return b'{"version": "0.24.0"}' if old else body
        if not path.startswith("/server_info"):
            return body
        info = json.loads(body)
        info["vllm_config"]["model_config"] |= {"logprobs_mode": "raw_logprobs", "quantization": "fp8"}
        info["vllm_config"]["scheduler_config"]["enable_chunked_prefill"] = True
        info["vllm_config"]["weight_transfer_config"] = None
        return json.dumps(info).encode()

    old, proxy.change = False, change
    with pytest.raises(Refused) as refusal:
        connect(proxy.port)
    for fault in (
        "--logprobs-mode raw_logprobs, not processed_logprobs",
        "backend None, not polaris",
        "--quantization fp8, not None",
        "no --no-enable-chunked-prefill",
    ):
        assert fault in str(refusal.value)
    old = True
    with pytest.raises(Refused, match=r"runs vLLM 0\.24\.0, and servers work with vllm>=0\.32"):
        connect(proxy.port)
    monkeypatch.setenv("VLLM_API_KEY", "another")
    with pytest.raises(Refused, match="wants its API key; set VLLM_API_KEY"):
        connect()


def test_a_server_that_is_not_there_is_said_at_once_and_refused(connect, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(Refused, match=rf"was asked for its health for 1 s and is not well: ClientConnectorError.*--port {port} "):
            connect(port, start_s=1.0)
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"http://127\.0\.0\.1:{port} is waited for, for 0\.017 minutes: Client.*this starts one that fits: VLLM_SERVER", said)


SMALL = (
    *("--name=run", "--observe.tensorboard=false", "--rollout.samples_per_prompt=4", "--rollout.max_response_tokens=48"),
    *("--rollout.max_concurrent=8", "--trainer.prompts_per_step=4", "--trainer.cpu_threads=1", "--trainer.steps=3"),
    *('--run.hooks=["keeps_groups:Keep"]', "--distributed.wait_timeout_hours=0.1", "--eval.every=100", "--eval.samples_per_prompt=1"),
    *("--rollout.placement=separate", "--rollout.max_staleness=0", "--checkpoint.every=100"),
)


@pytest.mark.distributed
def test_a_job_samples_by_it_and_goes_on_when_its_driver_is_killed(vllm_server, ours, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    rows = Path(resolve("embedded:train")).read_text(encoding="utf-8").splitlines()[:16]
    (problems := tmp_path / "problems.jsonl").write_text("\n".join(rows))
    options = (f"--data.path={problems}", f"--eval.path={problems}", f"--rollout.servers=['http://127.0.0.1:{vllm_server[1]}']")
    (trainer,) = start_ranks(1, HERE, f"--root={tmp_path}", *SMALL, *options)
    try:
        while not (tmp_path / "run" / "step-1.pickle").exists() and trainer.poll() is None:
            time.sleep(0.01)
        subprocess.run(["pkill", "-KILL", "-P", str(trainer.pid), "-f", "polaris.run.engine_rank"], check=True)
        status = trainer.wait(300)
    finally:
        trainer.kill()
    said = "".join(trainer.communicate())
    assert status == 0, said
    assert "engine 0 was killed by SIGKILL. Its server is asked again" in said
    assert "1 in all, 1 on a server outside the job, in turns with training" in said
    drawn = [pickle.loads((tmp_path / "run" / f"step-{step}.pickle").read_bytes()) for step in (1, 2, 3)]
    for version, pairs in enumerate(drawn):
        assert {version} == {number for _, rollout in pairs for number in rollout.versions.tolist()}
    requests = [
        RolloutRequest(prompt_id=one.prompt_id, sample=one.sample, prompt_tokens=tuple(tokens), seed=one.seed) for tokens, one in drawn[0]
    ]
    ours.load_weights(weights["A"], 0)
    same([rollout for _, rollout in drawn[0]], generate(ours, requests, temperature=drawn[0][0][1].temperature, max_tokens=48))


@pytest.mark.distributed
def test_a_stop_does_not_wait_for_a_server_that_is_not_there(tmp_path, monkeypatch):
    rows = Path(resolve("embedded:train")).read_text(encoding="utf-8").splitlines()[:16]
    (problems := tmp_path / "problems.jsonl").write_text("\n".join(rows))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        options = (f"--data.path={problems}", f"--eval.path={problems}", f"--rollout.servers=['http://127.0.0.1:{free.getsockname()[1]}']")
        monkeypatch.setenv("FORK_ENGINES", "1")
        (trainer,) = start_ranks(1, HERE, f"--root={tmp_path}", *SMALL, *options)
        try:
            while "is waited for, for 15 minutes" not in trainer.so_far():
                time.sleep(0.05)
            asked = time.monotonic()
            trainer.send_signal(signal.SIGTERM)
            status = trainer.wait(60)
        finally:
            trainer.kill()
    assert status == 143, trainer.communicate()
    assert time.monotonic() - asked < 15


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_is_gone_is_given_up(number, connect, vllm_server, monkeypatch):
    """The last tests: the server ends here."""
    monkeypatch.setattr(server_client, "_ANSWER_S", 1.0)
    engine = connect(silence_s=2.0)
    engine.submit(requests_for(prompt(5), samples=MOST), LONG)
    os.killpg(vllm_server[0].pid, number)
    begun = time.monotonic()
    with pytest.raises(ServerLost, match=r"was asked for its health for [2-9] s and is not well: (Timeout|ClientConnector|ServerDisc)"):
        drain(engine)
    assert time.monotonic() - begun < 15
    engine.close()
    if number == signal.SIGSTOP:
        os.killpg(vllm_server[0].pid, signal.SIGCONT)
