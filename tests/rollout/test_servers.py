"""vLLM's own server outside the job: it draws what our engine draws, takes weights in the middle, and is not believed when it fails."""

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
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
from tiny_models import MAX_LEN, generate, prompt, requests_for

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.errors import Refused, RunFailed
from polaris.model.rope import resolve_rope
from polaris.rollout import server_client
from polaris.rollout.engine import is_in_flight
from polaris.rollout.server_check import Wanted
from polaris.rollout.server_client import ServerLost
from polaris.rollout.server_engine import ServerEngine
from polaris.rollout.types import BridgePlace, GenerationInterrupted, Sampling
from polaris.rollout.vllm_versions import SERVERS, installed_version
from polaris.sync.bridge import Bridge

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(installed_version() < SERVERS, reason="vLLM is not installed, or has other endpoints for weights"),
]
ROOT = Path(__file__).resolve().parents[2]
KEY = "a secret"
MOST = 16
"""Sequences that the server decodes together."""
LONG = Sampling(temperature=1.0, max_tokens=300)


def wanted(models, name="A", **others):
    path = str(models.root / name)
    facts = {"dtype": "float32", "max_model_len": MAX_LEN, "most": MOST, "rope": resolve_rope(path)}
    return Wanted(model_path=path, **(facts | others))


@pytest.fixture(scope="module")
def server(models, declared, tmp_path_factory):
    """Process and port of a server with model A, started as our refusals say."""
    words = shlex.split(wanted(models).command(cuda=False))
    words[words.index("python")] = sys.executable
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words += f"--host 127.0.0.1 --port {port} --skip-tokenizer-init --enforce-eager --kv-cache-memory-bytes {32 << 20}".split()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), declared]),
        "VLLM_API_KEY": KEY,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(["env", *words], stdout=out, stderr=out, env=environment, start_new_session=True, cwd=ROOT)
    yield process, port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    print(log.read_text()[-5000:])  # shown where a test fails


@pytest.fixture
def connect(server, models, monkeypatch):
    """Engines on the server, closed with the test."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    engines = []

    def make(port=server[1], name="A", dtype="float32", max_model_len=MAX_LEN, rope=None, start_s=300.0, silence_s=30.0):
        path = models.root / name
        engine = ServerEngine(
            f"http://127.0.0.1:{port}/",
            path,
            model=ModelConfig(dtype=dtype),
            rollout=RolloutConfig(),
            max_model_len=max_model_len,
            rope=rope or resolve_rope(path),
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


def test_it_draws_what_our_engine_draws(connect, shared, models):
    engine, ours = connect(), shared("vllm", "A")
    ours.load_weights(models.load("A").named_parameters(), 0)
    requests = requests_for(prompt(5), prompt(70, 3), prompt(MAX_LEN - 8, 1), samples=8, seed=1 << 61)
    for settings in ({}, {"temperature": 0.7, "max_tokens": 200}, {"top_k": 5}, {"top_p": 0.8}):
        mine, theirs = (generate(one, requests, **settings) for one in (engine, ours))
        same(mine, theirs)
    assert {one.finish_reason for one in mine} == {"stop", "length"}
    assert {one.version for one in mine} == {0}
    with pytest.raises(ValueError, match="outside the model's vocabulary of 128"):
        engine.submit(requests_for((2, 128)), LONG)
    assert engine.workers == 1
    assert not engine.running
    assert is_in_flight(engine)


def test_weights_come_in_the_middle_of_responses(connect, shared, models, trainer):
    engine, place = connect(), trainer.place()
    requests = requests_for(*(prompt(4 + 9 * number, number) for number in range(6)), samples=8)
    prompts = {request.prompt_id: request.prompt_tokens for request in requests}
    rollouts, served = [], {0: "A"}
    weights = {name: list(models.load(name).named_parameters()) for name in "AB"}
    engine.submit(requests, LONG)
    for version, name in ((1, "B"), (4, "A")):
        rollouts += drain(engine, lambda ended: len(ended) >= 6)
        with trainer.sending(place, weights[name]):
            engine.take_weights(place, version)
        assert engine.version == version
        served[version] = name
    first = requests_for(prompt(9), samples=2, seed=77)
    engine.submit_first(first, LONG)
    assert engine.waiting >= len(requests) - len(rollouts) - MOST
    rollouts += (rest := drain(engine))
    seeds = [one.seed for one in rest]
    assert max(seeds.index(request.seed) for request in first) < len(rest) - 2
    rollouts = [one for one in rollouts if one.prompt_id in prompts and one.seed < 77 * 1000]
    assert len(rollouts) == len(requests) + len(first)
    mixed, off = 0, 0.0
    for rollout in rollouts:
        found = sorted(set(rollout.versions.tolist()))
        assert rollout.versions.tolist() == sorted(rollout.versions)
        start = prompts[rollout.prompt_id] if rollout.seed not in {one.seed for one in first} else first[0].prompt_tokens
        truth = {name: models.logprobs(name, (*start, *rollout.tokens.tolist()))[len(start) - 1 :] for name in "AB"}
        for version in found:
            mine = rollout.versions == version
            np.testing.assert_allclose(rollout.logprobs[mine], truth[served[version]][mine], atol=2e-5)
        mixed += len(found) > 1
        off = max(off, float(np.abs(truth["A"] - truth["B"]).max()))
    assert mixed >= MOST / 2
    assert off > 1, "the weights can be told apart"
    again = requests_for(prompt(70), samples=4)
    with trainer.sending(place, weights["B"]):
        engine.take_weights(place, 5)
    ours = shared("vllm", "A")
    ours.load_weights(models.load("B").named_parameters(), 5)
    same(generate(engine, again), generate(ours, again))


def test_after_a_broken_bridge_it_draws_nothing_until_it_has_whole_weights(connect, shared, models, trainer):
    engine, requests = connect(), requests_for(prompt(70), samples=4)
    weights = dict(models.load("B").named_parameters())
    wrong = list(weights.items())
    wrong[-1] = (wrong[-1][0], wrong[-1][1][:-1])
    for broken, said in ((list(weights.items())[:-1], "1 of [0-9]+ weights were not published"), (wrong, "has shape")):
        place = trainer.place()
        with pytest.raises(ServerLost, match=rf"update_weights failed: status 500.*{said}"), trainer.sending(place, broken):
            engine.take_weights(place, 1)
    engine.submit(requests, LONG)
    until = time.monotonic() + 0.5
    assert drain(engine, lambda ended: time.monotonic() > until) == []
    place = trainer.place()
    with trainer.sending(place, weights.items()):
        engine.take_weights(place, 1)
    ours = shared("vllm", "A")
    ours.load_weights(weights.items(), 1)
    theirs = generate(ours, requests, max_tokens=300)
    found = {one.sample: one for one in drain(engine)}
    same([found[request.sample] for request in requests], theirs)


def test_another_driver_begins_with_the_checkpoint(connect, shared, models, trainer):
    """Whatever the one before has left: here an update that it did not end."""
    before, place = connect(), trainer.place()

    def dying():
        yield from list(models.load("B").named_parameters())[:5]
        raise RuntimeError

    with (
        trainer.sending(place, dying()),
        pytest.raises(ServerLost, match=r"update_weights failed: status 500.*Connection (closed|reset) by peer"),
    ):
        before.take_weights(place, 1)
    before._order("/start_weight_update")
    engine, requests = connect(), requests_for(prompt(70), samples=4)
    assert engine.version == 0
    ours = shared("vllm", "A")
    ours.load_weights(models.load("A").named_parameters(), 0)
    same(generate(engine, requests), generate(ours, requests))
    with pytest.raises(ServerLost, match="which this job did not give it"):
        generate(before, requests)


def test_it_can_be_cut_off(connect):
    engine, requests = connect(), requests_for(prompt(49, 5), prompt(31, 3), samples=12)
    whole = {(one.prompt_id, one.sample): one for one in generate(engine, requests, max_tokens=300)}
    calls = iter(range(3))
    with pytest.raises(GenerationInterrupted):
        generate(engine, requests, max_tokens=300, should_stop=lambda: next(calls) == 2)
    engine.submit(requests, LONG)
    time.sleep(0.2)
    cut = engine.abort()
    assert not engine.running
    assert 0 < len(cut) <= MOST
    assert "abort" in {one.finish_reason for one in cut}
    for one in cut:
        tokens = whole[one.prompt_id, one.sample].tokens.tolist()
        assert one.tokens.tolist() == tokens[: len(one.tokens)]


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server, but for those that `rule(method, path)` answers; `change(path, body)` alters replies."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.rule(self.command, self.path)
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
def proxy(server):
    front = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    front.daemon_threads = True
    front.behind, front.rule, front.change = server[1], lambda method, path: None, lambda path, body: body
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
        ({"name": "UA"}, r"it is another model, whose lm_head.weight is None, the run's \[128, 64\]"),
        ({"rope": RopeConfig(factor=2.0)}, r"the server's rotary table has shape"),
    ],
)
def test_another_server_than_the_run_needs_is_refused(settings, said, connect, models):
    if "rope" in settings:
        settings = {"rope": resolve_rope(models.root / "A", settings["rope"])}
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
        info["vllm_config"]["weight_transfer_config"] = None
        return json.dumps(info).encode()

    old, proxy.change = False, change
    with pytest.raises(Refused) as refusal:
        connect(proxy.port)
    for fault in ("--logprobs-mode raw_logprobs, not processed_logprobs", "backend None, not polaris", "--quantization fp8, not None"):
        assert fault in str(refusal.value)
    old = True
    with pytest.raises(Refused, match=r"runs vLLM 0\.24\.0, and servers work with vllm>=0\.32"):
        connect(proxy.port)
    monkeypatch.setenv("VLLM_API_KEY", "another")
    with pytest.raises(Refused, match="wants its API key; set VLLM_API_KEY"):
        connect()


def test_a_server_that_is_not_there_is_refused(connect, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Refused, match=r"was asked for its health for 1 s and is not well: ClientConnectorError"):
            connect(free.getsockname()[1], start_s=1.0)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_is_gone_is_given_up(number, connect, server, monkeypatch):
    """The last tests: the server ends here."""
    monkeypatch.setattr(server_client, "_ANSWER_S", 1.0)
    engine = connect(silence_s=2.0)
    engine.submit(requests_for(prompt(5), samples=MOST), LONG)
    os.killpg(server[0].pid, number)
    begun = time.monotonic()
    with pytest.raises(ServerLost, match=r"was asked for its health for [2-9] s and is not well: (Timeout|ClientConnector|ServerDisc)"):
        drain(engine)
    assert time.monotonic() - begun < 15
    engine.close()
    if number == signal.SIGSTOP:
        os.killpg(server[0].pid, signal.SIGCONT)
