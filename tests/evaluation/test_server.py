"""An OpenAI-compatible server as the generator: vLLM's own with the embedded model, and one that fails on purpose."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from evaluations import lines, result, run, samples, start, wait_for_lines
from vllm_server import KEY, MOST

from polaris.embedded import resolve
from polaris.evaluation import server_source
from polaris.evaluation.samples import Key
from polaris.evaluation.server_source import ServerFailed, ServerSource
from polaris.evaluation.settings import EvalSettings, ServerSettings
from polaris.evaluation.source import Hooks, Wanted
from polaris.evaluation.suites import load_suites
from polaris.rollout.types import GenerationInterrupted
from polaris.rollout.vllm_versions import SERVERS, installed_version


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(installed_version() < SERVERS, reason="vLLM is not installed, or its server cannot be that of other tests too")
def test_vllms_server_is_waited_for_killed_from_and_resumed(vllm_server, problems, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model, url = resolve("embedded:model"), f"http://127.0.0.1:{vllm_server[1]}/v1"
    options = ("--server", url, "--suite", str(problems), "--prompt-suffix", "", "-n", "8", "--max-tokens", "128")
    options += ("--temperature", "1", "--workers", "1", "--concurrent", str(MOST))
    process = start(tmp_path / "run", "--model", model, *options)
    wait_for_lines(tmp_path / "run", 40, process)
    process.kill()
    process.communicate()
    kept = lines(tmp_path / "run")
    assert len(kept) < 320
    run(tmp_path / "run", "--model", model, *options)
    assert result(tmp_path / "run")["last_call"]["samples"] == 320 - len(kept)
    ours, engines = samples(tmp_path / "run"), samples(reference)
    assert {key: value[2] for key, value in ours.items()} == {key: value[2] for key, value in engines.items() if key[0] == "rope-1"}
    assert all(re.search(r"</think>", response) for response, _, _ in list(ours.values())[:5])
    for name in ("first", "second"):
        numbers, others = (result(output)["results"]["1"][name]["avg"] for output in (tmp_path / "run", reference))
        assert abs(numbers["mean"] - others["mean"]) < 0.15, "the server samples from another distribution than our engine"
    refusal = run(tmp_path / "other", "--model", "nobody", *options, status=1)
    assert "status 404" in refusal
    assert "nobody" in refusal


HANGS_UP = -1
LAST = "the last"
"""The reply after which nothing listens any more."""


class Unreliable(BaseHTTPRequestHandler):
    """Answers what `replies` of its server says next, or never where there is none left."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append((body, self.headers["Authorization"]))
            status, reply = self.server.replies.pop(0) if self.server.replies else (0, {})
        if not status:
            self.server.ended.wait(60)
            return
        if status == HANGS_UP:
            self.close_connection = True
            return
        if reply.pop(LAST, False):  # before it is sent: a connection that waits to be accepted would be reset, not refused
            self.server.dead = True
            self.server.server_close()
            threading.Thread(target=self.server.shutdown).start()
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def unreliable():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.daemon_threads = True
    server.dead = False
    server.lock, server.ended, server.bodies, server.replies = threading.Lock(), threading.Event(), [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
    if not server.dead:
        server.shutdown()
        server.server_close()


def answer(finish="stop", **message):
    return 200, {"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": 5}}


@pytest.fixture
def draw(unreliable, tmp_path):
    """Draw samples 0, 1, ... of one problem, one after the other."""
    (tmp_path / "set.jsonl").write_text(json.dumps({"id": "p", "problem": "One?", "answer": "1"}) + "\n", encoding="utf-8")
    url = f"http://127.0.0.1:{unreliable.server_address[1]}/v1/"
    settings = EvalSettings(
        suite=(str(tmp_path / "set.jsonl"),),
        samples_per_prompt=8,
        chat_template_options={"enable_thinking": True},
        server=ServerSettings(url=url, model="m", concurrency=1, attempts=3, patience_s=2.0),
    )
    source = ServerSource(settings, load_suites(settings))

    def do(count, should_stop=lambda: False, on_trouble=lambda text: None):
        heard = []
        wanted = [Wanted(key=Key("set", "p", number), seed=100 + number) for number in range(count)]
        hooks = Hooks(on_sample=heard.append, on_progress=lambda done, tokens: None, should_stop=should_stop, on_trouble=on_trouble)
        try:
            source.draw(1.0, wanted, hooks)
        except (ServerFailed, GenerationInterrupted) as error:
            return heard, error
        return heard, None

    return do


def test_passing_failures_are_tried_again_and_thinking_is_put_back(unreliable, draw, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    unreliable.replies += [(503, {}), (429, {}), answer(reasoning_content="1+0", content="\\boxed{1}")]
    unreliable.replies += [answer("length", reasoning="still", content=None), answer(content="\\boxed{2}")]
    heard, error = draw(3)
    assert error is None
    assert [(one.key.sample, one.response, one.finish_reason, one.tokens) for one in heard] == [
        (0, "<think>1+0</think>\\boxed{1}", "stop", 5),
        (1, "<think>still", "length", 5),
        (2, "\\boxed{2}", "stop", 5),
    ]
    bodies = [body for body, _ in unreliable.bodies]
    assert [body["seed"] for body in bodies] == [100, 100, 100, 101, 102]
    assert bodies[0] == bodies[2]
    assert bodies[0]["messages"][-1]["content"].startswith("One? Let's think")
    assert {name: bodies[0][name] for name in ("model", "temperature", "top_k", "max_tokens")} == {
        "model": "m",
        "temperature": 1.4,
        "top_k": 20,
        "max_tokens": 90_000,
    }
    assert bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}
    assert {key for _, key in unreliable.bodies} == {"Bearer secret"}


def test_a_refusal_is_final_and_so_is_the_last_attempt(unreliable, draw):
    unreliable.replies += [answer(content="a"), (400, {"error": "top_k is unknown"})]
    heard, error = draw(3)
    assert [one.response for one in heard] == ["a"]
    assert "top_k is unknown" in str(error)
    assert "the request for set/p" in str(error)
    unreliable.replies += [(500, {})] * 3
    heard, error = draw(1)
    assert heard == []
    assert "failed 3 times" in str(error)
    unreliable.replies += [(200, {"choices": []})]
    assert "another format" in str(draw(1)[1])


def test_a_stop_does_not_wait_for_an_open_request(unreliable, draw):
    begun = time.monotonic()
    heard, error = draw(2, should_stop=lambda: bool(unreliable.bodies))
    assert isinstance(error, GenerationInterrupted)
    assert heard == []
    assert time.monotonic() - begun < 20


def test_a_dead_server_is_named_and_given_up_and_what_had_ended_is_kept(unreliable, draw, monkeypatch):
    """The process ends with its first answer; nothing listens any more."""
    monkeypatch.setattr(server_source, "NAMED_AFTER_S", 0.5)
    said, begun = [], time.monotonic()
    status, reply = answer(content="a")
    unreliable.replies.append((status, reply | {LAST: True}))
    heard, error = draw(3, on_trouble=said.append)
    assert [one.response for one in heard] == ["a"]
    assert isinstance(error, ServerFailed)
    assert re.search(r"has not answered for [23] s", str(error))
    assert "every response so far is kept" in str(error)
    assert "--server-patience" in str(error)
    assert len(said) == 1
    assert "Connection refused" in said[0]
    assert "retrying for" in said[0]
    assert 2 <= time.monotonic() - begun < 20


def test_a_server_that_comes_back_is_said_to_and_loses_nothing(unreliable, draw, monkeypatch):
    monkeypatch.setattr(server_source, "NAMED_AFTER_S", 0.5)
    said = []
    unreliable.replies += [(HANGS_UP, {}), (HANGS_UP, {}), answer(content="a"), answer(content="b")]
    heard, error = draw(2, on_trouble=said.append)
    assert error is None
    assert [one.response for one in heard] == ["a", "b"]
    assert [text.split("/v1/ ")[1].split(" (")[0] for text in said] in (
        [f"has not answered for {seconds} s", "answers again"] for seconds in (0, 1)
    )


def test_one_request_that_the_server_drops_while_it_answers_others_fails(unreliable, draw):
    unreliable.replies += [(HANGS_UP, {}), (500, {}), (HANGS_UP, {}), (500, {})]
    assert "failed 3 times for set/p" in str(draw(1)[1])
